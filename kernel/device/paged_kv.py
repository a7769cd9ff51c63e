"""Keys and values of all layers, in pages: [layer, key or value, kv head, page, offset in the page, head dim].

Kv heads stand outside pages, so that what is gathered for a row is contiguous for each head: [kv heads, tokens, dim].
Every slot is finite at every time (zero at boot), so a hidden one weighs exactly nothing.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from cadenza.kernel.device.batch import Int32
from cadenza.kernel.model.config import ModelConfig


class PagedKv:
    """The pool's tensors on the device, and the position of each slot's token."""

    def __init__(self, config: ModelConfig, pages: int, page_tokens: int, dtype: torch.dtype) -> None:
        shape = (config.layers, 2, config.kv_heads, pages, page_tokens * config.head_dim)
        self._pages = torch.zeros(shape, dtype=dtype)
        self._slots = self._pages.view(*shape[:3], pages * page_tokens, config.head_dim)
        self.positions = np.zeros(pages * page_tokens, np.int32)                    # [slots]
        self.page_tokens = page_tokens
        self.head_dim = config.head_dim

    def copy(self, copies: Int32) -> None:
        """Whole pages, `copies` [C, 2] of (from, to), as if one after the other."""
        apart = not np.intersect1d(copies[:, 0], copies[:, 1]).size
        for sources, targets in [copies.T] if apart else copies[:, :, None]:
            self._pages[:, :, :, torch.from_numpy(targets)] = self._pages[:, :, :, torch.from_numpy(sources)]
            positions = self.positions.reshape(-1, self.page_tokens)
            positions[targets] = positions[sources]

    def write(self, layer: int, slots: Tensor, keys: Tensor, values: Tensor) -> None:
        """`slots` int64 [T]; `keys` and `values` [T, kv heads, head dim]."""
        held = self._slots[layer]
        held[0].index_copy_(1, slots, keys.transpose(0, 1))
        held[1].index_copy_(1, slots, values.transpose(0, 1))

    def gather(self, layer: int, pages: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values of `pages` int64 [P], one after the other: [kv heads, P · page tokens, head dim] each."""
        keys, values = (held.index_select(1, pages) for held in self._pages[layer])
        return self._as_tokens(keys), self._as_tokens(values)

    def erase(self, slots: Tensor) -> None:
        """What a failed step left behind, maybe not finite, is made zero."""
        self._slots[:, :, :, slots] = 0

    def _as_tokens(self, gathered: Tensor) -> Tensor:
        return gathered.view(gathered.shape[0], -1, self.head_dim)
