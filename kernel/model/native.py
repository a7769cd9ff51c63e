"""The operations of operations.py by the compiled kernels: activations are float32, weights are read as they are held.

What an operation answers lies in memory that its next call, or that of another of the same name and width, writes over:
so a decode step allocates nothing that grows with the model.
"""

from __future__ import annotations

import torch
from torch import Tensor

from cadenza.kernel.model.linear import Linear, linear, multiplies_bfloat16, quantised
from cadenza.kernel.model.operations import Gated, HeadNorm, Norm, Turn, torch_dtype
from cadenza.kernel.model.rope import Rotation
from cadenza.kernel.native.library_unsafe import GATES, Kernels, room

VIEWS = 64                               # of one buffer, for so many numbers of rows


class Scratch:
    """Memory for what is made and used up within a step. Used from one thread."""

    def __init__(self) -> None:
        self.grown = 0                   # how often: addresses from before are not valid any more
        self._buffers: dict[tuple[str, int], Tensor] = {}
        self._views: dict[tuple[str, int], dict[int, Tensor]] = {}

    def __call__(self, name: str, rows: int, width: int) -> Tensor:
        """float32 [rows, width], of any content."""
        views = self._views.setdefault((name, width), {})
        found = views.get(rows)
        return self._view(name, rows, width) if found is None else found

    def _view(self, name: str, rows: int, width: int) -> Tensor:
        key = (name, width)
        buffer, views = self._buffers.get(key), self._views[key]
        if buffer is None or len(buffer) < rows or len(views) >= VIEWS:
            views.clear()
        if buffer is None or len(buffer) < rows:
            self._buffers[key] = buffer = torch.zeros(rows, width)
            self.grown += 1
        views[rows] = buffer[:rows]
        return views[rows]


def _panels(count: int, width: int, kernels: Kernels, value_bytes: int) -> Tensor:
    """Room for the weights of `count` outputs of `width` inputs."""
    size = -(-count // kernels.panel_outputs) * kernels.panel_outputs * width * value_bytes
    return torch.frombuffer(room(size), dtype=torch.uint8)


def _padded(values: Tensor | None, kernels: Kernels) -> Tensor | None:
    """float32, up to whole panels."""
    if values is None:
        return None
    padded = torch.zeros(-(-len(values) // kernels.panel_outputs) * kernels.panel_outputs)
    padded[: len(values)] = values.float()
    return padded


def _address(values: Tensor | None) -> int:
    return 0 if values is None else values.data_ptr()


def is_bfloat16(weight: Tensor) -> bool:
    """Whether nothing is lost when the weight is held as bfloat16: checkpoints stored so are, also in float32."""
    return torch.equal(weight.to(torch.bfloat16).to(weight.dtype), weight)


class NativeLinear:
    """bfloat16 weights, read as such."""

    def __init__(self, weight: Tensor, bias: Tensor | None, kernels: Kernels, scratch: Scratch) -> None:
        self._out, self._in = weight.shape
        self._panels, self._bias = _panels(self._out, self._in, kernels, 2), _padded(bias, kernels)
        weight = weight.to(torch.bfloat16).contiguous()
        kernels.pack_bfloat16(self._in, self._out, weight.data_ptr(), self._panels.data_ptr())
        self._kernel, self._scratch, self._few_rows = kernels.linear_bfloat16, scratch, kernels.few_rows
        self._addresses = self._panels.data_ptr(), _address(self._bias)

    def __call__(self, x: Tensor) -> Tensor:
        x, rows = x.contiguous(), x.shape[0]
        y = self._scratch("linear", rows, self._out)
        packed = 0 if rows <= self._few_rows else self._scratch("packed", rows + self._few_rows, self._in).data_ptr()
        self._kernel(rows, self._in, self._out, x.data_ptr(), *self._addresses, packed, y.data_ptr())
        return y


class NativeInt8Linear:
    """int8 weights with a scale for each output; inputs are int16 with one for each row."""

    def __init__(self, weight: Tensor, bias: Tensor | None, kernels: Kernels, scratch: Scratch) -> None:
        self._out, self._in = weight.shape
        values, scales = quantised(weight)
        self._panels, self._bias = _panels(self._out, self._in + self._in % 2, kernels, 1), _padded(bias, kernels)
        kernels.pack_int8(self._in, self._out, values.data_ptr(), self._panels.data_ptr())
        self._scales = _padded(scales, kernels)
        self._kernel, self._scratch = kernels.linear_int8, scratch
        self._addresses = self._panels.data_ptr(), _address(self._scales), _address(self._bias)

    def __call__(self, x: Tensor) -> Tensor:
        x, rows = x.contiguous(), x.shape[0]
        y, inputs = self._scratch("linear", rows, self._out), self._scratch("int16", rows, self._in // 2 + 1)
        scales = self._scratch("scales", rows, 1)
        self._kernel(rows, self._in, self._out, x.data_ptr(), *self._addresses, inputs.data_ptr(), scales.data_ptr(),
                     y.data_ptr())  # fmt: skip
        return y


class NarrowLinear:
    """A bfloat16 map of a CPU that multiplies those, for float32 activations."""

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        self._narrow = linear(weight, bias)

    def __call__(self, x: Tensor) -> Tensor:
        return self._narrow(x.to(torch.bfloat16)).float()


class NativeNorm:
    """See `Norm`. `x` is overwritten by `after`."""

    def __init__(self, weight: Tensor, epsilon: float, kernels: Kernels, scratch: Scratch) -> None:
        self._weight, self._epsilon = weight.float().contiguous(), epsilon
        self._width, self._address = weight.shape[-1], self._weight.data_ptr()
        self._kernel, self._scratch = kernels.add_norm, scratch

    def __call__(self, x: Tensor) -> Tensor:
        return self._normed("norm", x.contiguous(), None)

    def after(self, x: Tensor, added: Tensor | None) -> tuple[Tensor, Tensor]:
        return x, self._normed("norm after", x, added)

    def _normed(self, name: str, x: Tensor, added: Tensor | None) -> Tensor:
        rows = x.shape[0]
        out = self._scratch(name, rows, self._width)
        self._kernel(rows, self._width, x.data_ptr(), _address(added), self._address, self._epsilon, out.data_ptr())
        return out


class NativeTurn:
    """See `Turn`. In place."""

    def __init__(self, heads: int, kv_heads: int, norm: HeadNorm | None, query_scale: float, kernels: Kernels) -> None:
        self._turned, self._heads, self._query_scale = heads + kv_heads, heads, query_scale
        self._weight = None if norm is None or norm.weight is None else norm.weight.float().contiguous()
        self._whole = norm if norm is not None and norm.weight is None else None
        self._epsilon = 0.0 if norm is None else norm.epsilon
        self._kernel = kernels.rotate_heads

    def __call__(self, heads: Tensor, by: Rotation) -> tuple[Tensor, Tensor, Tensor]:
        tokens, every, width = heads.shape
        if self._whole is not None:
            heads[:, : self._turned] = self._whole(heads[:, : self._turned])
        self._kernel(tokens, self._turned, self._heads, width, by.cosine.shape[-1], every * width, heads.data_ptr(),
                     _address(self._weight), self._epsilon, by.cosine.data_ptr(), by.sine.data_ptr(), self._query_scale)
        return heads[:, : self._heads], heads[:, self._heads : self._turned], heads[:, self._turned :]


class NativeOperations:
    """`dtype`: a name of DTYPES. Raises Unsupported for another."""

    dtype = torch.float32

    def __init__(self, dtype: str, kernels: Kernels) -> None:
        self.held, self._name = torch_dtype(dtype), dtype
        self.kernels, self.scratch = kernels, Scratch()

    def linear(self, weight: Tensor, bias: Tensor | None = None) -> Linear:
        if self._name == "int8":
            return NativeInt8Linear(weight, bias, self.kernels, self.scratch)
        if self._name == "float32" and not is_bfloat16(weight):
            return linear(weight, bias)
        if self._name == "bfloat16" and multiplies_bfloat16():
            return NarrowLinear(weight, bias)
        return NativeLinear(weight, bias, self.kernels, self.scratch)

    def norm(self, weight: Tensor, epsilon: float) -> Norm:
        return NativeNorm(weight, epsilon, self.kernels, self.scratch)

    def turn(self, heads: int, kv_heads: int, norm: HeadNorm | None, query_scale: float) -> Turn:
        return NativeTurn(heads, kv_heads, norm, query_scale, self.kernels)

    def gated(self, activation: str) -> Gated:
        kind = GATES[activation]

        def gated(gate_up: Tensor) -> Tensor:
            rows, width = gate_up.shape
            out = self.scratch("gated", rows, width // 2)
            self.kernels.gated(rows, width // 2, kind, gate_up.data_ptr(), out.data_ptr())
            return out

        return gated
