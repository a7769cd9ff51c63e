"""Rotary positions (Su et al., RoFormer, 2021, section 3.4), with the frequency scalings that `RopeConfig` names."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from cadenza.kernel.model.rope_config import RopeConfig


class Rotation(NamedTuple):
    """The angles of T positions: cosine and sine, [T, 1, head dim / 2] each."""

    cosine: Tensor
    sine: Tensor


def frequencies(config: RopeConfig, head_dim: int) -> Tensor:
    """Radians per position of each pair of values, float32 [head dim / 2]."""
    exponents = torch.arange(0, head_dim, 2, dtype=torch.float32) / head_dim
    plain = 1.0 / (config.theta**exponents)
    if config.kind == "linear":
        return plain / config.factor
    return _llama3(config, plain) if config.kind == "llama3" else plain


def _llama3(config: RopeConfig, plain: Tensor) -> Tensor:
    """Llama 3.1: slow frequencies divided by the factor, fast ones kept, those between blended by their wavelength."""
    wavelengths = 2 * math.pi / plain
    low, high = config.low_frequency_factor, config.high_frequency_factor
    kept = ((config.original_context_tokens / wavelengths - low) / (high - low)).clamp(0.0, 1.0)
    return (1 - kept) * plain / config.factor + kept * plain


def rotation(frequencies: Tensor, positions: Tensor, dtype: torch.dtype) -> Rotation:
    """Of `positions` [T], any integers; computed in the type of `frequencies` and given in `dtype`."""
    angles = positions.to(frequencies.dtype)[:, None] * frequencies          # [T, head dim / 2]
    return Rotation(angles.cos().to(dtype)[:, None], angles.sin().to(dtype)[:, None])


def rotate(heads: Tensor, by: Rotation) -> Tensor:
    """`heads` [T, heads, head dim], turned by its token's angles. Value i is paired with value i + head dim / 2."""
    first, second = heads.chunk(2, dim=-1)
    return torch.cat((first * by.cosine - second * by.sine, second * by.cosine + first * by.sine), dim=-1)
