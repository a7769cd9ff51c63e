"""DRY, "don't repeat yourself": a token that would go on with a repetition is penalised, the more the longer that is.

Source: p-e-w, oobabooga/text-generation-webui, pull request 5677.
Arguments: `multiplier` (0.8), `base` (1.75), `allowed`, the length from which on a repetition is penalised (2).
`window`, the last tokens that count (1024). `breakers`, texts over which no repetition reaches (a line break, ':', '"'
and '*'; of each its last token counts). `min_p` (0.02), after the penalties.

Asks for the likeliest tokens: penalties only lower, so it is exact as soon as the last of them is below `min_p` of what
is now the first; else it looks at more.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import cadenza

from .distribution import Distribution, Draw, min_p
from .loop import speak

BREAKERS = ("\n", ":", '"', "*")


def repeated(tokens: Sequence[int], breakers: Collection[int] = ()) -> dict[int, int]:
    """For each token that has followed what the text ends with: how long what it followed was, at the longest. No
    breaker is among them."""
    # Backwards, the end of the text is a prefix, and the Z function says how much of it begins at each place.
    back = [-1 - at if token in breakers else token for at, token in enumerate(reversed(tokens))]
    lengths, found = [0] * len(back), dict[int, int]()
    first = end = 0                                 # of the match that reaches farthest
    for at in range(1, len(back)):
        length = min(end - at, lengths[at - first]) if at < end else 0
        while at + length < len(back) and back[length] == back[at + length]:
            length += 1
        if at + length > end:
            first, end = at, at + length
        lengths[at] = length
        token = tokens[len(back) - at]              # the one after it
        found[token] = max(length, found.get(token, 0))
    return {token: length for token, length in found.items() if length and token not in breakers}


def penalty(length: int, multiplier: float, base: float, allowed: int) -> float:
    """What is taken off the logit of a token that makes a repetition of `length` one longer."""
    return multiplier * base ** (length - allowed) if length >= allowed else 0.0


async def main(args: cadenza.Arguments) -> None:
    strength = args.get("multiplier", 0.8), args.get("base", 1.75), args.get("allowed", 2)
    breakers = {cadenza.model.tokenize(text)[-1] for text in args.get("breakers", BREAKERS) if text}
    window, share, draw = args.get("window", 1024), args.get("min_p", 0.02), Draw.by(args)

    def choose(seen: Distribution, before: Sequence[int]) -> int:
        lengths = repeated(before[-window:], breakers)
        return draw(min_p(seen, share, lambda token: -penalty(lengths.get(token, 0), *strength)))

    await speak(args, choose)
