"""A mixture of experts in the place of an MLP (Shazeer et al. 2017; Qwen3 and gpt-oss technical reports): no torch."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ExpertsConfig:
    """Each token's MLP is those `chosen` of `count` experts that its router likes best, weighted by its likelihoods,
    `renormalised` to one among the chosen. Others than `layers` have a plain MLP.

    `clamped` is the form of gpt-oss: tensors of all experts in one, gate and up interleaved, biases, and
    (up + 1) ⊙ gate ⊙ σ(`slope` · gate) with gate and up within `bound`.
    """

    count: int
    chosen: int
    intermediate: int
    renormalised: bool
    layers: tuple[int, ...]
    clamped: bool = False
    slope: float = 1.702
    bound: float = 7.0
