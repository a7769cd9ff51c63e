"""What queries read of keys and values that lie side by side, and the natural logarithms of the sums of weights."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

CAPPED_QUERIES = 64                      # queries whose capped scores are held at once: bounds them

Read = tuple[Tensor, Tensor]


class Scoring(Protocol):
    """`queries` [B, heads, T, D], `keys` and `values` [B, kv heads, S, D]; `attn_mask` is added to scores, and has the
    shape of them or of what expands to it. What is read [B, heads, T, D], the logarithms [B, heads, T]."""

    def __call__(self, queries: Tensor, keys: Tensor, values: Tensor, *, is_causal: bool = False,
                 attn_mask: Tensor | None = None) -> Read: ...  # fmt: skip


# Answers zeros for a query whose mask hides everything, and no logarithm that means anything.
flash: Scoring = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu


class Capped:
    """The same with scores cap · tanh(score / cap) (Gemma 2 report, section 2), which torch's own does not compute."""

    def __init__(self, cap: float) -> None:
        self._cap = cap

    def __call__(self, queries: Tensor, keys: Tensor, values: Tensor, *, is_causal: bool = False,
                 attn_mask: Tensor | None = None) -> Read:  # fmt: skip
        count, slots = queries.shape[2], keys.shape[2]
        if is_causal:
            attn_mask = torch.full((1, 1, count, slots), -torch.inf).triu_(1)
        blocks = [slice(first, first + CAPPED_QUERIES) for first in range(0, count, CAPPED_QUERIES)]
        reads = [self._block(queries[:, :, block], keys, values,
                             None if attn_mask is None else attn_mask[:, :, block]) for block in blocks]
        return torch.cat([out for out, _ in reads], 2), torch.cat([logs for _, logs in reads], 2)

    def _block(self, queries: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None) -> Read:
        batch, _, count, head_dim = queries.shape
        grouped = queries.float().reshape(batch, keys.shape[1], -1, count, head_dim)
        scores = grouped @ keys.float()[:, :, None].transpose(3, 4) / head_dim**0.5
        scores = self._cap * torch.tanh(scores / self._cap)                         # [B, kv heads, group, T, S]
        if mask is not None:
            scores = scores + mask.unsqueeze(2)
        logs = torch.logsumexp(scores, -1)
        out = torch.softmax(scores, -1).nan_to_num_(0.0) @ values.float()[:, :, None]
        return out.flatten(1, 2).to(queries.dtype), logs.flatten(1, 2)


def scoring(cap: float) -> Scoring:
    """With that cap; 0 is none."""
    return Capped(cap) if cap else flash
