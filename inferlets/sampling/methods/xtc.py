"""XTC, "exclude top choices": now and then, all good tokens but the least likely of them are taken away.

Source: p-e-w, oobabooga/text-generation-webui, pull request 6335.
Arguments: `threshold`, the probability of a good token (0.1). `probability`, how often (0.5). `min_p` (0.02), which
keeps the tail out.

Asks for the likeliest tokens: exact as soon as the last of them is below `min_p` of the first; else it looks at more.
The threshold is on the model's own probabilities, before `min_p` and temperature.
"""

from __future__ import annotations

import math

import cadenza

from .distribution import Distribution, Draw, min_p
from .loop import speak


def xtc(kept: Distribution, threshold: float) -> Distribution:
    """Without those of probability `threshold` or more, but for the last of these."""
    above = sum(score >= math.log(threshold) for score in kept.log_probabilities)
    first = max(0, above - 1)
    return Distribution(kept.tokens[first:], kept.log_probabilities[first:])


async def main(args: cadenza.Arguments) -> None:
    threshold, probability = args.get("threshold", 0.1), args.get("probability", 0.5)
    share, draw = args.get("min_p", 0.02), Draw.by(args)

    def choose(seen: Distribution) -> int:
        kept = min_p(seen, share)
        return draw(xtc(kept, threshold) if draw.random.random() < probability else kept)

    await speak(args, lambda seen, before: choose(seen))
