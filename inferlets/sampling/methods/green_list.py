"""A watermark: after each token some tokens are green, and these are favoured. Who has the key counts them.

Source: Kirchenbauer et al., "A Watermark for Large Language Models", arXiv 2301.10226, section 4 (algorithm 2, the soft
watermark; equation 3, the detector). There the vocabulary is shuffled and cut; here each token is green by a hash of
its own, so that the likeliest ones can be coloured alone: a share `gamma` of tokens is green on the average.
Arguments: `key` ("cadenza"). `gamma`, the share of green tokens (0.25). `delta`, what is added to their logits (2).
`min_p` (0.02), after that. `detect`, a text: its score is printed, and nothing is said.

Asks for the likeliest tokens: exact as soon as the last of them, were it green, is below `min_p` of the first; else it
looks at more.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import cadenza

from .distribution import Distribution, Draw, min_p
from .keyed import KEY, chance, windows
from .loop import speak


def is_green(key: str, gamma: float, before: int, token: int) -> bool:
    return chance(key, before, token) < gamma


def watermarked(seen: Distribution, before: int, key: str, gamma: float, delta: float, share: float) -> Distribution:
    """Raises Undecided."""
    return min_p(seen, share, lambda token: delta if is_green(key, gamma, before, token) else 0.0, lift=delta)


def detected(tokens: Sequence[int], key: str, gamma: float) -> float:
    """How many standard deviations more green tokens there are than chance gives: about 0 in a text of others, and 4
    by chance once in 30,000 texts."""
    colours = [is_green(key, gamma, *pair) for pair in windows(tokens, 1)]
    return (sum(colours) - gamma * len(colours)) / math.sqrt(max(1, len(colours)) * gamma * (1 - gamma))


async def main(args: cadenza.Arguments) -> None:
    key, gamma = str(args.get("key", KEY)), args.get("gamma", 0.25)
    if "detect" in args:
        tokens = cadenza.model.tokenize(args.detect)
    else:
        delta, share, draw = args.get("delta", 2.0), args.get("min_p", 0.02), Draw.by(args)
        tokens = await speak(
            args, lambda seen, before: draw(watermarked(seen, before[-1], key, gamma, delta, share))
        )
    print(f"z = {detected(tokens, key, gamma):.1f} over {len(tokens)} tokens")
