"""Embeddings: what the model makes of a text, as one vector."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from .context import Context
from .errors import Invalid
from .inference import Hidden, forward

Pooling = Literal["mean", "last", "first"]

POOLED_TOKENS = 256     # whose states are asked for in one pass


async def embed(
    content: str | Sequence[int], pooling: Pooling = "mean", normalise: bool = True, adapter: str | None = None
) -> list[float]:
    """The model's last hidden states of a text or of tokens, normed as its head sees them: their mean, or that of the
    last or of the first token. `normalise`: to length 1, so that the sum of products of two is their cosine.

    A text follows the model's begin token, if it has one. Raises Invalid when there is no token, TooLong, NoPages.
    """
    if pooling not in ("mean", "last", "first"):
        raise Invalid(f"pooling is {pooling!r}; it must be mean, last or first")
    async with Context(adapter=adapter) as context:
        context.fill(content)
        tokens = context.tokens
        if not tokens:
            raise Invalid("there is no token to embed: give some text")
        pooled = await _pooled(context, tokens[:1] if pooling == "first" else tokens, pooling == "mean")
    scale = sum(value * value for value in pooled) ** 0.5 if normalise else 1.0
    return [value / (scale or 1.0) for value in pooled]


async def _pooled(context: Context, tokens: list[int], mean: bool) -> list[float]:
    """The mean of their states, or the last one."""
    if not mean:
        return await _sum(context, tokens, len(tokens) - 1)
    sums = [await _sum(context, tokens[first : first + POOLED_TOKENS], 0)
            for first in range(0, len(tokens), POOLED_TOKENS)]  # fmt: skip
    return [sum(values) / len(tokens) for values in zip(*sums, strict=True)]


async def _sum(context: Context, tokens: list[int], first: int) -> list[float]:
    """Of the states of these tokens, the next ones, from the first asked on."""
    rows = [(row, Hidden()) for row in range(first, len(tokens))]
    done = await forward(context.file, tokens, probes=rows, adapter=context.adapter)
    states = [answer for answer in done.probes if isinstance(answer, list)]
    return [sum(values) for values in zip(*states, strict=True)]
