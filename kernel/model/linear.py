"""A linear map over a weight that is packed once, when it is made.

torch's own map packs its weight at every call: at 2 to 32 rows that costs two to three times the multiplication. And
a CPU without bfloat16 instructions multiplies bfloat16 some ten times slower than float32, so there the packed
weight is float32, and inputs and outputs are converted.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor
from torch.nn import functional

from cadenza.kernel.native.cpu import has_bfloat16

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


class WideLinear:
    """A bfloat16 map computed in float32."""

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        self._wide = linear(weight.float(), None if bias is None else bias.float())

    def __call__(self, x: Tensor) -> Tensor:
        return self._wide(x.float()).to(torch.bfloat16)


class QuantisedLinear:
    """int8 weights with a scale for each output, widened at every call: what faster ones must agree with."""

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        self._values, self._scales = quantised(weight)
        self._bias = None if bias is None else bias.float()

    def __call__(self, x: Tensor) -> Tensor:
        return functional.linear(x.float(), self._values.float() * self._scales[:, None], self._bias).to(x.dtype)


def quantised(weight: Tensor) -> tuple[Tensor, Tensor]:
    """int8 [out, in] and scales [out] of `weight`: symmetric, the largest of an output is ±127."""
    wide = weight.float()
    scales = wide.abs().amax(1).clamp_(min=torch.finfo(torch.float32).tiny) / 127
    return torch.round(wide / scales[:, None]).to(torch.int8), scales


@cache
def multiplies_bfloat16() -> bool:
    """Whether this CPU has instructions for it, and torch uses them. Torch says yes as well where it only converts."""
    supported = getattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", None)
    return has_bfloat16() and supported is not None and bool(supported())


def packs() -> bool:
    """Whether this build of torch packs weights."""
    return all(hasattr(torch.ops.mkldnn, name) for name in ("_linear_pointwise", "_reorder_linear_weight"))


def linear(weight: Tensor, bias: Tensor | None = None) -> Linear:
    """`weight` [out, in], `bias` [out]: both of one type. Only a CPU's are packed."""
    if weight.device.type != "cpu":
        return PlainLinear(weight, bias)
    if weight.dtype == torch.bfloat16 and not multiplies_bfloat16():
        return WideLinear(weight, bias)
    return PackedLinear(weight, bias) if packs() else PlainLinear(weight, bias)

