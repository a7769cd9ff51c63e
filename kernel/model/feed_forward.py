"""What a layer does to each token by itself: an MLP, or a mixture of experts.

    mlp(h)     = down · gated(gate · h, up · h)                     gated(g, u) = silu(g) ⊙ u, for one
    experts(h) = Σ weight_e · mlp_e(h) over the chosen e            weight = softmax(router · h)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import torch
from torch import Tensor

from cadenza.kernel.model.config import ModelConfig
from cadenza.kernel.model.experts_config import ExpertsConfig
from cadenza.kernel.model.linear import Linear
from cadenza.kernel.model.operations import Gated, Operations

# The name of a tensor of the layer → that tensor.
Get = Callable[[str], Tensor]


class Mapped(Protocol):
    """Makes a linear map that adapters may add to, of several stacked ones."""

    def __call__(self, names: Sequence[str], biased: bool) -> Linear: ...


def clamped(slope: float, bound: float) -> Gated:
    """(up + 1) ⊙ gate ⊙ σ(slope · gate), gate at most and up within `bound` (gpt-oss)."""

    def gated(gate_up: Tensor) -> Tensor:
        gate, up = gate_up.chunk(2, dim=-1)
        gate = gate.clamp(max=bound)
        return (up.clamp(-bound, bound) + 1) * gate * torch.sigmoid(slope * gate)

    return gated


class Mlp:
    """Of two maps: gate and up, side by side, and down."""

    def __init__(self, gate_up: Linear, down: Linear, gated: Gated) -> None:
        self._gate_up, self._down, self._gated = gate_up, down, gated

    def __call__(self, h: Tensor) -> Tensor:
        return self._down(self._gated(self._gate_up(h)))


class Experts:
    """Each expert computes the rows that chose it, those together."""

    def __init__(self, config: ExpertsConfig, router: Linear, experts: Sequence[Mlp]) -> None:
        self._chosen, self._renormalised = config.chosen, config.renormalised
        self._router, self._experts = router, experts

    def __call__(self, h: Tensor) -> Tensor:
        weights, chosen = self._route(h)                                            # [T, chosen] each
        out = torch.zeros_like(h)
        for number in torch.unique(chosen).tolist():
            rows, places = (chosen == number).nonzero(as_tuple=True)
            out.index_add_(0, rows, self._experts[number](h[rows]) * weights[rows, places, None])
        return out

    def _route(self, h: Tensor) -> tuple[Tensor, Tensor]:
        weights, chosen = torch.topk(torch.softmax(self._router(h).float(), -1), self._chosen, -1)
        if self._renormalised:
            weights = weights / weights.sum(-1, keepdim=True)
        return weights.to(h.dtype), chosen


def feed_forward(config: ModelConfig, layer: int, get: Get, mapped: Mapped, operations: Operations) -> Mlp | Experts:
    """Of that layer; `get` reads its tensors."""
    experts = config.experts
    if experts is not None and config.has_experts(layer):
        made = _clamped_experts if experts.clamped else _experts
        return made(config, experts, get, operations)
    names = ["mlp.gate_up_proj"] if config.fused else ["mlp.gate_proj", "mlp.up_proj"]
    gate_up, down = mapped(names, config.mlp_bias), mapped(["mlp.down_proj"], config.mlp_bias)
    return Mlp(gate_up, down, operations.gated(config.activation))


def _experts(config: ModelConfig, c: ExpertsConfig, get: Get, operations: Operations) -> Experts:
    """Adapters add to none of these maps."""
    gated = operations.gated(config.activation)

    def expert(number: int) -> Mlp:
        gate, up, down = (get(f"mlp.experts.{number}.{name}_proj.weight") for name in ("gate", "up", "down"))
        return Mlp(operations.linear(torch.cat((gate, up))), operations.linear(down), gated)

    return Experts(c, operations.linear(get("mlp.gate.weight")), [expert(number) for number in range(c.count)])


def _clamped_experts(config: ModelConfig, c: ExpertsConfig, get: Get, operations: Operations) -> Experts:
    """Tensors of all experts: [experts, in, out], their biases [experts, out]; gate and up alternate."""
    gate_up, gate_up_bias = get("mlp.experts.gate_up_proj"), get("mlp.experts.gate_up_proj_bias")
    down, down_bias = get("mlp.experts.down_proj"), get("mlp.experts.down_proj_bias")

    def expert(number: int) -> Mlp:
        maps, biases = gate_up[number].T, gate_up_bias[number]
        first = operations.linear(torch.cat((maps[::2], maps[1::2])), torch.cat((biases[::2], biases[1::2])))
        return Mlp(first, operations.linear(down[number].T.contiguous(), down_bias[number].contiguous()), gated)

    gated = clamped(c.slope, c.bound)
    router = operations.linear(get("mlp.router.weight"), get("mlp.router.bias"))
    return Experts(c, router, [expert(number) for number in range(c.count)])
