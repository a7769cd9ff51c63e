"""What tests of the store share: images that can be told apart, and records of them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from cadenza.kvfs.records import FileRecord, Layout, Naming, PartRecord, StoredPage
from cadenza.kvfs.store import Store

LAYOUT = Layout("a" * 64, 64, 4)
LIMIT = 1 << 20
NO_NAME = Naming("ada", ())


def image(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, LAYOUT.page_bytes, np.uint8)


def record_for(number: int, path: str, pages: Sequence[StoredPage], seed: int) -> FileRecord:
    count = len(pages) * LAYOUT.page_tokens
    tokens = np.arange(seed, seed + count, dtype=np.int32)
    part = PartRecord(tuple(pages), 0, 0, count, 0, False, tokens, tokens % 97)
    return FileRecord(number, LAYOUT, Naming("ada", (path,)), True, True, 1, seed, (part,) if count else ())


def stage(store: Store, number: int, path: str, seeds: Sequence[int]) -> FileRecord:
    """A file whose pages are the images of `seeds`, written and staged."""
    slots = store.allocate(len(seeds))
    sums = store.write(slots, np.stack([image(seed) for seed in seeds])) if seeds else []
    record = record_for(number, path, list(map(StoredPage, slots, sums)), sum(seeds))
    store.stage(record)
    store.release(slots)
    return record


def put(store: Store, number: int, path: str, seeds: Sequence[int]) -> FileRecord:
    """As `stage`, and durable."""
    record = stage(store, number, path, seeds)
    assert store.commit(number)
    return record


def contents(store: Store, record: FileRecord) -> list[bytes]:
    """The images of its pages. Raises Damaged."""
    out = np.zeros((len(record.pages), record.layout.page_bytes), np.uint8)
    store.read(record.pages, out)
    return [row.tobytes() for row in out]


def state(store: Store) -> dict[int, tuple[tuple[str, ...], list[bytes]]]:
    """Names and pages of every file. Raises Damaged."""
    return {number: (record.naming.paths, contents(store, record)) for number, record in store.files.items()}


def flip(path: Path, at: int, bits: int = 1) -> None:
    with path.open("rb+") as file:
        file.seek(at)
        (byte,) = file.read(1)
        file.seek(at)
        file.write(bytes((byte ^ bits,)))


def fill(path: Path, data: bytes) -> None:
    """In place: a file that is emptied first is written to the disk at its close, which takes long."""
    with path.open("rb+") as file:
        file.write(data)
        file.truncate()
