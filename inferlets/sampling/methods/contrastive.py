"""Contrastive decoding: what an expert finds likely, and an amateur does not.

Source: Li et al., "Contrastive Decoding", arXiv 2210.15097, section 3 (the plausible set, and the score). There the
amateur is a smaller model, or one that sees less: here it is the same model, which sees the last tokens of the prompt
alone, and what is said. Chosen greedily, not by the paper's beam search.
Arguments: `alpha`, the share of the likeliest token's probability that makes a token plausible (0.1). `amateur_tokens`
of the prompt that the amateur sees (1). `amateur_temperature` (1). `temperature` (0).

Asks the expert for its likeliest tokens: exact as soon as the last of them is not plausible. Asks the amateur of the
plausible ones only, and not at all where there is but one: it catches up later, in one pass.
"""

from __future__ import annotations

from collections.abc import Sequence

import cadenza

from .distribution import Distribution, Draw, min_p
from .loop import Look, opened, probed, say


def contrasted(plausible: Distribution, amateur: Sequence[float], temperature: float = 1.0) -> Distribution:
    """Plausible tokens by the expert's log-probability less the amateur's; those are in the order of `plausible`. The
    amateur's temperature does not need its normalization: that is the same for all."""
    both = zip(plausible.pairs(), amateur, strict=True)
    return Distribution.of((token, score - other / temperature) for (token, score), other in both)


async def main(args: cadenza.Arguments) -> None:
    alpha, draw = args.get("alpha", 0.1), Draw.by(args, temperature=0.0)

    async def following() -> int:
        plausible = await look(lambda seen: min_p(seen, alpha))
        if len(plausible.tokens) == 1:
            return plausible.tokens[0]
        [scores] = await probed(amateur, cadenza.LogProbabilities(plausible.tokens))
        return draw(contrasted(plausible, scores, args.get("amateur_temperature", 1.0)))

    async with opened(args) as expert, cadenza.Context(adapter=expert.adapter) as amateur:
        amateur.fill(expert.tokens[-max(1, args.get("amateur_tokens", 1)) :])
        look = Look(expert)
        await say(args, following, expert, amateur)
