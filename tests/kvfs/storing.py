"""What tests of the store share: images that can be told apart, and records of them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from cadenza.kvfs.records import FileRecord, Layout, Naming, PartRecord, StoredPage
from cadenza.kvfs.store import Store

LAYOUT = Layout("a" * 64, 64, 4)
LIMIT = 1 << 20


def image(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, LAYOUT.page_bytes, np.uint8)


def record_for(number: int, path: str, pages: Sequence[StoredPage], seed: int) -> FileRecord:
    count = len(pages) * LAYOUT.page_tokens
    tokens = np.arange(seed, seed + count, dtype=np.int32)
    part = PartRecord(tuple(pages), 0, 0, count, 0, False, tokens, tokens % 97)
    return FileRecord(number, LAYOUT, Naming("ada", (path,)), True, True, 1, seed, (part,) if count else ())


def put(store: Store, number: int, path: str, seeds: Sequence[int]) -> FileRecord:
    """A file whose pages are the images of `seeds`, durable."""
    slots = store.allocate(len(seeds))
    sums = store.write(slots, np.stack([image(seed) for seed in seeds])) if seeds else []
    record = record_for(number, path, list(map(StoredPage, slots, sums)), sum(seeds))
    store.adopt(record, store.commit(record))
    store.release(slots)
    return record


def contents(store: Store, record: FileRecord) -> list[bytes]:
    """The images of its pages. Raises Damaged."""
    pages = [page for part in record.parts for page in part.pages]
    out = np.zeros((len(pages), record.layout.page_bytes), np.uint8)
    store.read(pages, out)
    store.verify(pages, out)
    return [row.tobytes() for row in out]
