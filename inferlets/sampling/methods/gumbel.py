"""A watermark that leaves the distribution as it is: the token is drawn by numbers that the key makes.

Source: Aaronson, "My AI Safety Lecture for UT Effective Altruism", 2022 (the exponential form of the Gumbel trick); its
score is treated in Fernandez et al., "Three Bricks to Consolidate Watermarks", arXiv 2308.00113, section 2.
Arguments: `key` ("cadenza"). `before`, how many tokens choose the numbers (4): more are less often the same, fewer
stand changes of the text better. `min_p` (0.02), which keeps the tail out. `temperature` (1). `detect`, a text: its
score is printed, and nothing is said.

Asks for the likeliest tokens: exact as soon as the last of them is below `min_p` of the first; else it looks at more.
The same prompt and key give the same text: the key is the seed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import cadenza

from .distribution import Distribution, min_p
from .keyed import KEY, chance, windows
from .loop import speak


def watermarked(kept: Distribution, before: Sequence[int], key: str, temperature: float = 1.0) -> int:
    """The token with the greatest r^(1/p), where r is its number, found in logarithms. Over all keys, each token comes
    with its probability p."""

    def rank(pair: tuple[int, float]) -> float:
        return pair[1] - temperature * math.log(-math.log(chance(key, *before, pair[0])))

    return max(kept.pairs(), key=rank)[0]


def detected(tokens: Sequence[int], key: str, before: int) -> float:
    """How many standard deviations the sum of -ln(1 - r) is above that of a text of others, where each is 1 on the
    average, with variance 1."""
    scores = [-math.log1p(-chance(key, *window)) for window in windows(tokens, before)]
    return (math.fsum(scores) - len(scores)) / math.sqrt(max(1, len(scores)))


async def main(args: cadenza.Arguments) -> None:
    key, count = str(args.get("key", KEY)), args.get("before", 4)
    if count < 1:
        raise ValueError(f"`before` is {count}; at least one token must choose the numbers")
    if "detect" in args:
        tokens = cadenza.model.tokenize(args.detect)
    else:
        share, temperature = args.get("min_p", 0.02), args.get("temperature", 1.0)
        tokens = await speak(
            args, lambda seen, before: watermarked(min_p(seen, share), before[-count:], key, temperature)
        )
    print(f"z = {detected(tokens, key, count):.1f} over {len(tokens)} tokens")
