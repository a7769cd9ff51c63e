"""Eta sampling: a cut-off on probabilities, lower where the model is unsure.

Source: Hewitt et al., "Truncation Sampling as Language Model Desmoothing", arXiv 2210.15191 (the definition of
eta-sampling).
Arguments: `epsilon` (0.002; 0.0003 to 0.004 are usual).

Asks for the likeliest tokens and the entropy: exact as soon as the last of them is below the cut-off; else it looks at
more.
"""

from __future__ import annotations

import math

import cadenza

from .distribution import Distribution, Draw, at_least
from .loop import speak


def cut_off(entropy: float, epsilon: float) -> float:
    """The least probability that is kept: `epsilon`, or less where the entropy (nats) is high."""
    return min(epsilon, math.sqrt(epsilon) * math.exp(-entropy))


def eta(seen: Distribution, epsilon: float) -> Distribution:
    """Raises Undecided."""
    return at_least(seen, math.log(cut_off(seen.entropy, epsilon)))


async def main(args: cadenza.Arguments) -> None:
    epsilon, draw = args.get("epsilon", 0.002), Draw.by(args)
    await speak(args, lambda seen, before: draw(eta(seen, epsilon)), entropy=True)
