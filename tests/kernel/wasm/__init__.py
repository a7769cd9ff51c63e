"""Tests of the Wasm runtime: every guest in here is real Wasm."""
