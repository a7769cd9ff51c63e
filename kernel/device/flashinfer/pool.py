"""Keys and values on a GPU: [layer, key or value, page, offset in the page, kv head, head dim].

A slot's heads lie together, so that the same memory is pages of 16 tokens and pages of one. There is one page more than
the kernel knows of, the last: what padding writes and reads lies there. Positions, which only planning reads, are on
the host. Every slot is finite at every time (zero at boot), so a hidden one weighs exactly nothing.

The image of a page in the host tier is PagedKv's: [layer, key or value, kv head, offset, head dim], then positions.
Images go through a stream of their own, which begins after what is on the current one and ends before what follows.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor

from cadenza.kernel.device.batch import Int32, UInt8
from cadenza.kernel.model.config import ModelConfig

MOVED_PAGES = 64                         # staged at once: bounds what a swap takes of the GPU's memory


class Pool:
    """The pool's tensors, and the position of each slot's token."""

    def __init__(self, config: ModelConfig, pages: int, page_tokens: int, dtype: torch.dtype, device: torch.device
                 ) -> None:  # fmt: skip
        shape = (config.layers, 2, pages + 1, page_tokens, config.kv_heads, config.head_dim)
        self._pages = torch.zeros(shape, dtype=dtype, device=device)
        self._slots = self._pages.view(*shape[:2], -1, 1, *shape[4:])
        self.positions = np.zeros((pages + 1) * page_tokens, np.int32)              # [slots]
        self.page_tokens, self.spare_page = page_tokens, pages
        self._kv_bytes = self._pages[:, :, 0].numel() * self._pages.element_size()
        self._stream: torch.cuda.Stream | None = None
        if device.type == "cuda":
            self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]

    @property
    def image_bytes(self) -> int:
        """Of a page: its K and V of all layers, then the positions of its slots."""
        return self._kv_bytes + 4 * self.page_tokens

    def keys_values(self, layer: int, page_tokens: int) -> tuple[Tensor, Tensor]:
        """Each [pages, page_tokens, kv heads, head dim], in pages of the pool or of one token."""
        held = self._slots[layer] if page_tokens == 1 else self._pages[layer]
        return held[0], held[1]

    def write(self, layer: int, slots: Tensor, keys: Tensor, values: Tensor) -> None:
        """`slots` int64 [T]; `keys` and `values` [T, kv heads, head dim]."""
        held = self._slots[layer, :, :, 0]
        held[0].index_copy_(0, slots, keys)
        held[1].index_copy_(0, slots, values)

    def erase(self, slots: Tensor) -> None:
        """What a failed step left behind, maybe not finite, is made zero; and what padding did."""
        self._slots[:, :, slots] = 0
        self._pages[:, :, self.spare_page] = 0

    def move(self, moves: Int32) -> None:
        """Tokens from slot to slot, `moves` [·, 2] of (from, to), all at once."""
        sources, targets = moves.T
        self._slots[:, :, self._numbers(targets)] = self._slots[:, :, self._numbers(sources)]
        self.positions[targets] = self.positions[sources]

    def copy(self, copies: Int32) -> None:
        """Whole pages, `copies` [C, 2] of (from, to), as if one after the other."""
        apart = not np.intersect1d(copies[:, 0], copies[:, 1]).size
        for sources, targets in [copies.T] if apart else copies[:, :, None]:
            self._pages[:, :, self._numbers(targets)] = self._pages[:, :, self._numbers(sources)]
            positions = self._page_positions()
            positions[targets] = positions[sources]

    def save(self, pages: Int32, host: Tensor, host_pages: Int32) -> None:
        """Images of `pages` into those pages of `host`, uint8 [·, image_bytes]. Returns before they are there."""
        with self._beside():
            for some, there in _pieces(pages, host_pages):
                images = self._pages[:, :, self._numbers(some)].permute(2, 0, 1, 4, 3, 5).contiguous()
                for page, image in zip(there.tolist(), images.view(len(some), -1).view(torch.uint8), strict=True):
                    host[page, : self._kv_bytes].copy_(image, non_blocking=True)
        self._host_positions(host)[host_pages] = self._page_positions()[pages].view(np.uint8)

    def load(self, host: Tensor, host_pages: Int32, pages: Int32) -> None:
        """The other way round. Returns before they are there."""
        layers, two, _, page_tokens, heads, head_dim = self._pages.shape
        with self._beside():
            for some, there in _pieces(pages, host_pages):
                images = torch.empty(len(some), self._kv_bytes, dtype=torch.uint8, device=self._pages.device)
                for page, image in zip(there.tolist(), images, strict=True):
                    image.copy_(host[page, : self._kv_bytes], non_blocking=True)
                kv = images.view(self._pages.dtype).view(-1, layers, two, heads, page_tokens, head_dim)
                self._pages[:, :, self._numbers(some)] = kv.permute(1, 2, 0, 4, 3, 5)
        self._page_positions()[pages] = self._host_positions(host)[host_pages].view(np.int32)

    @contextmanager
    def _beside(self) -> Iterator[None]:
        if self._stream is None:
            yield
            return
        self._stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self._stream):
            yield
        torch.cuda.current_stream().wait_stream(self._stream)

    def _numbers(self, numbers: Int32) -> Tensor:
        return torch.from_numpy(numbers.astype(np.int64)).to(self._pages.device)

    def _page_positions(self) -> Int32:
        """[pages, page_tokens], a view."""
        return self.positions.reshape(-1, self.page_tokens)

    def _host_positions(self, host: Tensor) -> UInt8:
        """The bytes of positions of all images, a view."""
        positions: UInt8 = host.numpy()[:, self._kv_bytes :]
        return positions


def _pieces(pages: Int32, host_pages: Int32) -> Iterator[tuple[Int32, Int32]]:
    for first in range(0, len(pages), MOVED_PAGES):
        yield pages[first : first + MOVED_PAGES], host_pages[first : first + MOVED_PAGES]
