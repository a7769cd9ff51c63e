"""Mirostat 2: a text whose surprise per token is what was asked for, by feedback on the cut-off.

Source: Basu et al., "Mirostat", arXiv 2007.14966; its second version, which needs no estimate of Zipf's exponent, is in
the authors' repository (basusourya/mirostat).
Arguments: `tau`, the surprise wanted, in bits a token (3). `rate` of the feedback (0.1).

Asks for the likeliest tokens: exact as soon as the last of them is above the cut-off; else it looks at more.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import cadenza

from .distribution import Distribution, Draw, at_least
from .loop import speak


class Mirostat:
    """`most` is the largest surprise that is let through, in bits; it follows what was drawn."""

    def __init__(self, tau: float, rate: float, draw: Draw) -> None:
        self.tau, self.rate = tau, rate
        self.most = 2 * tau
        self._draw = draw

    def __call__(self, seen: Distribution, before: Sequence[int] = ()) -> int:
        """Raises Undecided."""
        token = self._draw(at_least(seen, -self.most * math.log(2)))
        surprise = -dict(seen.pairs())[token] / math.log(2)
        self.most -= self.rate * (surprise - self.tau)
        return token


async def main(args: cadenza.Arguments) -> None:
    await speak(args, Mirostat(args.get("tau", 3.0), args.get("rate", 0.1), Draw.by(args)))
