"""Rotary positions (Su et al., RoFormer, 2021, section 3.4), with the frequency scalings that `RopeConfig` names."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from cadenza.kernel.model.rope_config import RopeConfig, rotated_width

KEPT_POSITIONS = 65_536              # of heads of 128: 32 MiB, once somebody has come so far


class Rotation(NamedTuple):
    """The angles of T positions: cosine and sine, [T, 1, rotated values of a head / 2] each."""

    cosine: Tensor
    sine: Tensor


def frequencies(config: RopeConfig, head_dim: int) -> Tensor:
    """Radians per position of each pair of values, float32 [rotated values of a head / 2]."""
    width = rotated_width(config, head_dim)
    plain = 1.0 / config.theta ** (torch.arange(0, width, 2, dtype=torch.float32) / width)
    if config.kind == "linear":
        return plain / config.factor
    if config.kind == "longrope":
        return plain / torch.tensor(config.pair_factors)
    if config.kind == "yarn":
        return _yarn(config, plain, width)
    return _llama3(config, plain) if config.kind == "llama3" else plain


def _llama3(config: RopeConfig, plain: Tensor) -> Tensor:
    """Llama 3.1: slow frequencies divided by the factor, fast ones kept, those between blended by their wavelength."""
    wavelengths = 2 * math.pi / plain
    low, high = config.low_frequency_factor, config.high_frequency_factor
    kept = ((config.original_context_tokens / wavelengths - low) / (high - low)).clamp(0.0, 1.0)
    return (1 - kept) * plain / config.factor + kept * plain


def _yarn(config: RopeConfig, plain: Tensor, width: int) -> Tensor:
    """YaRN (Peng et al. 2023, section 3.2): as llama3, but blended by the number of the pair, between those that make
    `beta_fast` and `beta_slow` turns over the original context."""

    def pair(turns: float) -> float:
        return width * math.log(config.original_context_tokens / (turns * 2 * math.pi)) / (2 * math.log(config.theta))

    low, high = pair(config.beta_fast), pair(config.beta_slow)
    if config.truncated:
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, width - 1)
    scaled = ((torch.arange(width // 2) - low) / ((high - low) or 0.001)).clamp(0.0, 1.0)
    return scaled * plain / config.factor + (1 - scaled) * plain


def rotation(frequencies: Tensor, positions: Tensor, dtype: torch.dtype, scale: float = 1.0) -> Rotation:
    """Of `positions` [T], any integers; computed in the type of `frequencies` and given in `dtype`."""
    angles = positions.to(frequencies.dtype)[:, None] * frequencies          # [T, rotated / 2]
    cosine, sine = (angles.cos(), angles.sin()) if scale == 1 else (angles.cos() * scale, angles.sin() * scale)
    return Rotation(cosine.to(dtype)[:, None], sine.to(dtype)[:, None])


class Angles:
    """Rotations looked up by position: those of the first positions are computed once, for that costs a step of few
    tokens more than it seems. On a GPU, and of positions beyond, they are computed each time."""

    def __init__(self, frequencies: Tensor, dtype: torch.dtype, scale: float = 1.0) -> None:
        self._frequencies, self._dtype, self._scale = frequencies, dtype, scale
        self._kept = self._of(torch.arange(0))

    def __call__(self, positions: Tensor) -> Rotation:
        """Of `positions` [T], at least one, any integers."""
        if positions.device.type != "cpu":
            return self._of(positions)
        least, most = int(positions.numpy().min()), int(positions.numpy().max())
        if least < 0 or most >= KEPT_POSITIONS:
            return self._of(positions)
        if most >= len(self._kept.cosine):
            self._kept = self._of(torch.arange(min(KEPT_POSITIONS, max(1024, 2 * most))))
        return Rotation(self._kept.cosine.index_select(0, positions), self._kept.sine.index_select(0, positions))

    def _of(self, positions: Tensor) -> Rotation:
        return rotation(self._frequencies, positions, self._dtype, self._scale)


def rotate(heads: Tensor, by: Rotation) -> Tensor:
    """`heads` [T, heads, head dim], turned by its token's angles. Of the R values that are rotated, value i is paired
    with value i + R / 2; those behind them stay."""
    half = by.cosine.shape[-1]
    first, second, rest = heads[..., :half], heads[..., half : 2 * half], heads[..., 2 * half :]
    return torch.cat((first * by.cosine - second * by.sine, second * by.cosine + first * by.sine, rest), dim=-1)
