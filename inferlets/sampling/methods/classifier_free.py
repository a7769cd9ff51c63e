"""Classifier-free guidance: further in the direction in which the prompt moves the logits.

Source: Sanchez et al., "Stay on topic with Classifier-Free Guidance", arXiv 2306.17806, section 2.
Arguments: `guidance` (1.5): 1 is the model itself, 0 is the model without the prompt. `negative`, a text that stands in
the prompt's place on the other side (the prompt's last token). `min_p` (0.02), of what comes out.

The formula moves every logit, so all of them are asked for, of both contexts at once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import cadenza

from .distribution import Draw, min_p_of_logits
from .loop import logits, opened, say


def guided(conditional: Sequence[float], unconditional: Sequence[float], guidance: float) -> list[float]:
    """Logits; a constant added to all on either side changes nothing in what they mean."""
    pairs = zip(conditional, unconditional, strict=True)
    return [without + guidance * (with_prompt - without) for with_prompt, without in pairs]


async def main(args: cadenza.Arguments) -> None:
    guidance, share, draw = args.get("guidance", 1.5), args.get("min_p", 0.02), Draw.by(args)

    async def following() -> int:
        both = await asyncio.gather(logits(conditional), logits(unconditional))
        return draw(min_p_of_logits(guided(*both, guidance), share))

    async with opened(args) as conditional, cadenza.Context(adapter=conditional.adapter) as unconditional:
        unconditional.fill(args["negative"] if "negative" in args else conditional.tokens[-1:])
        await say(args, following, conditional, unconditional)
