"""Keys and values of all layers, in pages: [layer, key or value, kv head, page, offset in the page, head dim].

Kv heads stand outside pages, so that what is gathered for a row is contiguous for each head: [kv heads, tokens, dim].
Every slot is finite at every time (zero at boot), so a hidden one weighs exactly nothing.
"""

from __future__ import annotations

from itertools import pairwise

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
        self.dtype = dtype
        # Of each layer: where its keys lie, and its values.
        self.addresses = [(layer[0].data_ptr(), layer[1].data_ptr()) for layer in self._pages]

    def copy(self, copies: Int32) -> None:
        """Whole pages, `copies` [C, 2] of (from, to), as if one after the other."""
        apart = not np.intersect1d(copies[:, 0], copies[:, 1]).size
        for sources, targets in [copies.T] if apart else copies[:, :, None]:
            self._pages[:, :, :, torch.from_numpy(targets)] = self._pages[:, :, :, torch.from_numpy(sources)]
            positions = self._page_positions()
            positions[targets] = positions[sources]

    def move(self, moves: Int32) -> None:
        """Tokens from slot to slot, `moves` [·, 2] of (from, to), all at once."""
        sources, targets = moves.astype(np.int64).T.copy()
        self._slots[:, :, :, torch.from_numpy(targets)] = self._slots[:, :, :, torch.from_numpy(sources)]
        self.positions[targets] = self.positions[sources]

    @property
    def image_bytes(self) -> int:
        """Of a page: K and V of all layers in the order of this file, without pages, then the positions."""
        layers, two, heads, _, width = self._pages.shape
        return layers * two * heads * width * self._pages.element_size() + 4 * self.page_tokens

    def save(self, pages: Int32, images: Tensor) -> None:
        """Images of `pages` [P] into `images`, uint8 [P, image_bytes]."""
        kv, positions = self._parts(images)
        for some, first in _runs(pages):
            kv[some].copy_(self._pages[:, :, :, first : first + some.stop - some.start].permute(3, 0, 1, 2, 4))
        positions[:] = self._page_positions()[pages]

    def load(self, images: Tensor, pages: Int32) -> None:
        """The other way round."""
        kv, positions = self._parts(images)
        for some, first in _runs(pages):
            self._pages[:, :, :, first : first + some.stop - some.start].copy_(kv[some].permute(1, 2, 3, 0, 4))
        self._page_positions()[pages] = positions

    def write(self, layer: int, slots: Tensor, keys: Tensor, values: Tensor) -> None:
        """`slots` int64 [T]; `keys` and `values` [T, kv heads, head dim]."""
        held = self._slots[layer]
        held[0].index_copy_(1, slots, keys.transpose(0, 1))
        held[1].index_copy_(1, slots, values.transpose(0, 1))

    def read(self, layer: int, slots: Tensor | slice) -> tuple[Tensor, Tensor]:
        """Keys and values of `slots`, [kv heads, slots, head dim] each: of a slice in place, of int64 [·] copied."""
        held = self._slots[layer]
        if isinstance(slots, slice):
            return held[0, :, slots], held[1, :, slots]
        return held[0].index_select(1, slots), held[1].index_select(1, slots)

    def erase(self, slots: Tensor) -> None:
        """What a failed step left behind, maybe not finite, is made zero."""
        self._slots[:, :, :, slots] = 0

    def _parts(self, images: Tensor) -> tuple[Tensor, Int32]:
        """Views of images: K and V [P, layers, 2, kv heads, values of a page], positions [P, page_tokens]."""
        layers, two, heads, _, width = self._pages.shape
        cut = images.shape[1] - 4 * self.page_tokens
        kv = images[:, :cut].view(self._pages.dtype).view(len(images), layers, two, heads, width)
        positions: Int32 = images[:, cut:].view(torch.int32).numpy()
        return kv, positions

    def _page_positions(self) -> Int32:
        """[pages, page_tokens], a view."""
        return self.positions.reshape(-1, self.page_tokens)


def _runs(pages: Int32) -> list[tuple[slice, int]]:
    """Neighbouring pages together: where they stand in `pages`, and the first of them."""
    bounds = [0, *(np.flatnonzero(np.diff(pages) != 1) + 1).tolist(), len(pages)]
    return [(slice(a, b), int(pages[a])) for a, b in pairwise(bounds)]
