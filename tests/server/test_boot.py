"""What boot does to the process that it runs in."""

from __future__ import annotations

import asyncio
import gc
from pathlib import Path

from benchmarks.harness import wordless
from cadenza.kernel.device.local_link import LocalLink
from cadenza.kernel.device.torch_device import TorchDevice
from cadenza.kvfs.records import Layout
from cadenza.server.boot import Assembly, collect_seldom, open_store
from cadenza.server.limits import COLLECT_OBJECTS
from tests.kernel.device.dense import CONFIG


def test_what_is_loaded_is_not_looked_at_again_and_the_rest_seldom() -> None:
    before = gc.get_threshold()
    try:
        collect_seldom()
        assert gc.get_freeze_count() > 10_000                  # modules, classes, functions
        assert gc.get_threshold()[0] == COLLECT_OBJECTS
        garbage = [[] for _ in range(100)]
        garbage.append(garbage)
        del garbage
        assert gc.collect() > 0                                # what comes later is still found
    finally:
        gc.unfreeze()
        gc.set_threshold(*before)


def test_pages_of_another_type_of_weights_are_of_another_layout(tmp_path: Path) -> None:
    def layout(dtype: str) -> Layout:
        with TorchDevice.random(CONFIG, pages=8, page_tokens=4, dtype=dtype, threads=1) as device:
            link = LocalLink(device)
            store = asyncio.run(open_store(link, wordless(link), Assembly(tmp_path, disk_bytes=1 << 20)))
            assert store is not None
            store.close()
            return store.layout
    plain, halves, bytes_ = (layout(dtype) for dtype in ("float32", "bfloat16", "int8"))
    assert (plain.weights, halves.weights, bytes_.weights) == ("", "", "int8")
    assert halves.page_bytes == bytes_.page_bytes, "the images look alike"
    assert len({plain, halves, bytes_}) == 3
