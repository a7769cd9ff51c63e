"""A linear map, prepacked where that pays: in bfloat16 on the CPU oneDNN repacks a plain weight at every call."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional

# [rows, in] → [rows, out]
Linear = Callable[[Tensor], Tensor]


class PlainLinear:
    """x · weightᵀ + bias."""

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        self._weight, self._bias = weight, bias

    def __call__(self, x: Tensor) -> Tensor:
        return functional.linear(x, self._weight, self._bias)


class PackedLinear:
    """The same over a weight in oneDNN's own layout; the plain weight is not kept."""

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        self._weight = torch.ops.mkldnn._reorder_linear_weight(weight.contiguous(), 1)
        self._bias = bias
        self._apply = torch.ops.mkldnn._linear_pointwise.default

    def __call__(self, x: Tensor) -> Tensor:
        applied: Tensor = self._apply(x, self._weight, self._bias, "none", [], "")
        return applied


def packs(weight: Tensor) -> bool:
    """Whether a packed map of `weight` can be had here, and pays."""
    operations = torch.ops.mkldnn
    present = hasattr(operations, "_linear_pointwise") and hasattr(operations, "_reorder_linear_weight")
    return (
        weight.dtype == torch.bfloat16
        and weight.device.type == "cpu"
        and present
        and bool(operations._is_mkldnn_bf16_supported())
    )


def linear(weight: Tensor, bias: Tensor | None = None) -> Linear:
    """`weight` [out, in], `bias` [out]."""
    return PackedLinear(weight, bias) if packs(weight) else PlainLinear(weight, bias)


def stacked_linear(weights: Sequence[Tensor], biases: Sequence[Tensor | None]) -> Linear:
    """Several maps of one input as one: their outputs stand side by side."""
    present = [bias for bias in biases if bias is not None]
    assert len(present) in (0, len(weights)), "either every stacked map has a bias, or none"
    return linear(torch.cat(list(weights)), torch.cat(present) if present else None)
