"""Speculation: several tokens a pass, and the same text. Put this folder beside your main.py, or a link to it.

    from speculation.cacheback import Cacheback
    answer = await context.generate(max_tokens=500, speculation=Cacheback()).text()

What may come is looked up in tables of what came before, and verified as a tree in one pass; the outcome is what plain
decoding says, token for token, greedy or drawn. See docs/speculation.md.

`cacheback`, `ngram_model`, `prompt_lookup`, `run` and `sharing` ask the kernel; the other modules ask nothing of it.
"""
