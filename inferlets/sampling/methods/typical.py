"""Typical sampling: the tokens whose surprisal is nearest to what is expected, the entropy.

Source: Meister et al., "Locally Typical Sampling", arXiv 2202.00666 (the truncation set of locally typical sampling).
Arguments: `mass`, the probability that is kept (0.95).

Asks for the likeliest tokens and the entropy: exact as soon as all that is nearer to the entropy than what was not
seen has that mass; else it looks at more.
"""

from __future__ import annotations

import math

import cadenza

from .distribution import Distribution, Draw, Undecided
from .loop import speak


def typical(seen: Distribution, mass: float) -> Distribution:
    """The smallest set of tokens nearest to the entropy that has `mass`. Raises Undecided."""
    beyond = math.inf if seen.whole else -seen.log_probabilities[-1] - seen.entropy
    kept, total = list[tuple[int, float]](), 0.0
    for token, score in sorted(seen.pairs(), key=lambda pair: abs(-pair[1] - seen.entropy)):
        if abs(-score - seen.entropy) > beyond:
            raise Undecided
        kept.append((token, score))
        total += math.exp(score)
        if total >= mass:
            return Distribution.of(kept)
    if not seen.whole:
        raise Undecided
    return Distribution.of(kept)


async def main(args: cadenza.Arguments) -> None:
    mass, draw = args.get("mass", 0.95), Draw.by(args)
    await speak(args, lambda seen, before: draw(typical(seen, mass)), entropy=True)
