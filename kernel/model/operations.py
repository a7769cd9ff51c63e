"""What a decoder's layers are made of, made by whoever computes them: here torch alone, the oracle.

native.py makes the same from compiled kernels. A step's tensors are theirs until the next call of the same operation: a
decoder adds to what it was given, or hands it on, and keeps nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional

from cadenza.kernel.model.linear import Linear, QuantisedLinear, linear
from cadenza.kernel.model.rope import Rotation, rotate
from cadenza.kvfs.errors import Unsupported

# Gate and up side by side, [T, 2 · intermediate] → [T, intermediate].
Gated = Callable[[Tensor], Tensor]
# [T, H + 2K, D] and the angles of the tokens → queries [T, H, D], keys and values [T, K, D].
Turn = Callable[[Tensor, Rotation], tuple[Tensor, Tensor, Tensor]]
# Of weights, and of computing where a CPU does it in the type of the weights.
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "int8": torch.bfloat16}


class Norm(Protocol):
    """x / √(mean(x²) + ε) · weight over the last axis, the division in float32 (Zhang & Sennrich 2019)."""

    def __call__(self, x: Tensor) -> Tensor: ...

    def after(self, x: Tensor, added: Tensor | None) -> tuple[Tensor, Tensor]:
        """x + added, and the norm of that. `x` is given up."""


class HeadNorm(Protocol):
    """Of query and key heads, [T, H + K, D]. `weight` [H + K, D] where each head is normed by itself, else None."""

    epsilon: float

    @property
    def weight(self) -> Tensor | None: ...

    def __call__(self, heads: Tensor, /) -> Tensor: ...


class Operations(Protocol):
    """`dtype`: of activations. `held`: of weights, as they are handed to `linear` and to `norm`."""

    dtype: torch.dtype
    held: torch.dtype

    def linear(self, weight: Tensor, bias: Tensor | None = None) -> Linear:
        """x · weightᵀ + bias: `weight` [out, in], `bias` [out]."""

    def norm(self, weight: Tensor, epsilon: float) -> Norm: ...

    def turn(self, heads: int, kv_heads: int, norm: HeadNorm | None, query_scale: float) -> Turn:
        """Norms query and key heads, rotates them, scales queries."""

    def gated(self, activation: str) -> Gated:
        """`activation`: a name of GATED."""


class TorchNorm:
    """A `Norm`, or one of each head."""

    def __init__(self, weight: Tensor, epsilon: float) -> None:
        self.weight: Tensor | None = weight
        self.epsilon, self._weight, self._width = epsilon, weight, (weight.shape[-1],)

    def __call__(self, x: Tensor) -> Tensor:
        return functional.rms_norm(x, self._width, None, self.epsilon) * self._weight

    def after(self, x: Tensor, added: Tensor | None) -> tuple[Tensor, Tensor]:
        x = x if added is None else x + added
        return x, self(x)


class WholeNorm:
    """One norm over all query heads, and one over all key heads, of [T, H + K, D] (OLMo 2)."""

    def __init__(self, query: TorchNorm, key: TorchNorm, heads: int) -> None:
        self.weight, self.epsilon = None, query.epsilon
        self._query, self._key, self._heads = query, key, heads

    def __call__(self, heads: Tensor) -> Tensor:
        query, key = heads[:, : self._heads], heads[:, self._heads :]
        normed = self._query(query.flatten(1)), self._key(key.flatten(1))
        return torch.cat(normed, 1).view(heads.shape)


class Unnormed:
    """Where a family has no norm."""

    def __call__(self, x: Tensor) -> Tensor:
        return x

    def after(self, x: Tensor, added: Tensor | None) -> tuple[Tensor, Tensor]:
        x = x if added is None else x + added
        return x, x


class TorchTurn:
    """See `Turn`."""

    def __init__(self, heads: int, kv_heads: int, norm: HeadNorm | None, query_scale: float) -> None:
        self._heads, self._kv_heads, self._norm, self._query_scale = heads, kv_heads, norm, query_scale

    def __call__(self, heads: Tensor, by: Rotation) -> tuple[Tensor, Tensor, Tensor]:
        turning, values = heads[:, : -self._kv_heads], heads[:, -self._kv_heads :]
        rotated = rotate(turning if self._norm is None else self._norm(turning), by)
        queries, keys = rotated[:, : self._heads], rotated[:, self._heads :]
        return queries if self._query_scale == 1 else queries * self._query_scale, keys, values


def _silu(gate: Tensor) -> Tensor:
    return functional.silu(gate)


def _gelu_tanh(gate: Tensor) -> Tensor:
    return functional.gelu(gate, approximate="tanh")


GATED = {"silu": _silu, "gelu_tanh": _gelu_tanh}


class TorchOperations:
    """`dtype`: a name of DTYPES. Raises Unsupported for another."""

    def __init__(self, dtype: str) -> None:
        self.dtype = self.held = torch_dtype(dtype)
        self._quantised = dtype == "int8"

    def linear(self, weight: Tensor, bias: Tensor | None = None) -> Linear:
        return QuantisedLinear(weight, bias) if self._quantised else linear(weight, bias)

    def norm(self, weight: Tensor, epsilon: float) -> Norm:
        return TorchNorm(weight.to(self.dtype), epsilon)

    def turn(self, heads: int, kv_heads: int, norm: HeadNorm | None, query_scale: float) -> Turn:
        return TorchTurn(heads, kv_heads, norm, query_scale)

    def gated(self, activation: str) -> Gated:
        activated = GATED[activation]

        def gated(gate_up: Tensor) -> Tensor:
            gate, up = gate_up.chunk(2, dim=-1)
            return activated(gate) * up

        return gated


def torch_dtype(name: str) -> torch.dtype:
    """Raises Unsupported for a name that is not of DTYPES."""
    if name not in DTYPES:
        raise Unsupported(f"dtype {name!r} is not supported; {', '.join(DTYPES)} are")
    return DTYPES[name]
