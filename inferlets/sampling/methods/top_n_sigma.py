"""Top-n-sigma: the tokens whose logit is within n standard deviations of the greatest one.

Source: Tang et al., "Top-nσ: Not All Logits Are You Need", arXiv 2411.07641, algorithm 1.
Arguments: `n` (1).

The deviation is that of all logits, so all of them are asked for. The temperature does not change what is kept.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import cadenza

from .distribution import Distribution, Draw
from .loop import logits, opened, say


def top_n_sigma(logits: Sequence[float], n: float) -> Distribution:
    mean = math.fsum(logits) / len(logits)
    sigma = math.sqrt(math.fsum((logit - mean) ** 2 for logit in logits) / len(logits))
    least = max(logits) - n * sigma
    return Distribution.of((token, logit) for token, logit in enumerate(logits) if logit >= least)


async def main(args: cadenza.Arguments) -> None:
    n, draw = args.get("n", 1.0), Draw.by(args)

    async def following() -> int:
        return draw(top_n_sigma(await logits(context), n))

    async with opened(args) as context:
        await say(args, following, context)
