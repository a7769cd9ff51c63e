"""Low-rank additions to linear maps, several adapters in one batch: y = W x + B A x for the rows of each (LoRA, Hu et
al. 2021; rows grouped by adapter as in Punica, Chen et al. 2023). A step in which no row has one computes nothing here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from torch import Tensor

from cadenza.kernel.model.adapter import StoredAdapter
from cadenza.kernel.model.linear import Linear, linear
from cadenza.kvfs.errors import Invalid

Int32 = NDArray[np.int32]
NONE = -1                                # a row without an adapter


class LowRank(NamedTuple):
    """x [rows, in] → up(down(x)) [rows, out]; the adapter's scale is in `up`."""

    down: Linear
    up: Linear


Maps = dict[str, LowRank]                # by the name of the linear map that each adds to


class Adapters:
    """Those loaded, by slot, and which of the rows at hand have which. Used from one thread, but for `put`."""

    def __init__(self) -> None:
        self.groups: list[tuple[Tensor, Maps]] = []          # of the rows at hand: their numbers, and what is added
        self.device = torch.device("cpu")                    # of the rows
        self._slots: dict[int, Maps] = {}

    def put(self, slot: int, maps: Maps) -> None:
        self._slots[slot] = maps

    def drop(self, slot: int) -> None:
        self._slots.pop(slot, None)

    def choose(self, slots: Int32) -> None:
        """The slot of each row of what is computed next, NONE for none; of no row at all if it is empty."""
        self.groups = []
        if len(slots):
            self.groups = [(torch.from_numpy(np.flatnonzero(slots == slot)).to(self.device), self._slots[slot])
                           for slot in np.unique(slots).tolist() if slot != NONE]

    def over(self, base: Linear, widths: Mapping[str, int]) -> Linear:
        """`base`, with what adapters add to it. Its outputs are those of these maps, side by side, so wide each."""
        return AdaptedLinear(base, widths, self)


class AdaptedLinear:
    """A linear map, or several of one input, to which each row's adapter adds."""

    def __init__(self, base: Linear, widths: Mapping[str, int], adapters: Adapters) -> None:
        self._base, self._adapters = base, adapters
        ends = np.cumsum([0, *widths.values()]).tolist()
        self._columns = {name: slice(ends[n], ends[n + 1]) for n, name in enumerate(widths)}

    def __call__(self, x: Tensor) -> Tensor:
        y = self._base(x)
        for rows, maps in self._adapters.groups:
            own = x[rows]
            for name, columns in self._columns.items():
                added = maps.get(name)
                if added is not None:
                    y[:, columns].index_add_(0, rows, added.up(added.down(own)))
        return y


def read_maps(adapter: StoredAdapter, dtype: torch.dtype, device: torch.device | str = "cpu") -> Maps:
    """Reads the tensors onto `device` and packs them; blocks. Raises Invalid for what is damaged or not finite."""
    maps: Maps = {}
    try:
        with torch.inference_mode(), safe_open(str(adapter.file), framework="pt", device="cpu") as opened:
            for name in adapter.pairs:
                down, up = (opened.get_tensor(f"base_model.model.{name}.lora_{side}.weight").float() for side in "AB")
                if not (torch.isfinite(down).all() and torch.isfinite(up).all()):
                    raise Invalid(f"the adapter's numbers for {name} are not finite", "weights")
                maps[name] = LowRank(linear(down.to(device, dtype)), linear((up * adapter.scale).to(device, dtype)))
    except (SafetensorError, OSError) as fault:
        raise Invalid(f"{adapter.file}: {fault}", "weights") from None
    return maps
