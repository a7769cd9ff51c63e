"""Sampling methods, one a file: a pure function that is its mathematics, and a `main` that speaks by it.

What they share: `distribution` (what is known of the next token, and a draw), `loop` (a pass a token), `keyed` (a hash
for watermarks).
"""
