"""What every benchmark needs: a kernel over a device of its choice, and one JSON object as the last line."""

from __future__ import annotations

import argparse
import asyncio
import json
import tempfile
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np

from cadenza.kernel.device.batch import Batch
from cadenza.kernel.device.link import DeviceLink
from cadenza.kernel.device.local_link import LocalLink
from cadenza.kernel.device.null_device import NullDevice
from cadenza.kernel.kernel import Kernel
from cadenza.kernel.language import Language
from cadenza.kernel.model.facts import ModelFacts
from cadenza.server.boot import Assembly, assemble

Figures = dict[str, Any]
PAGE_TOKENS = 16


def wordless(link: DeviceLink) -> Language:
    """Facts of a model that has no tokenizer: programs give it tokens."""
    facts = link.facts
    return Language(ModelFacts("wordless", "0" * 64, facts.vocabulary_size, facts.context_tokens, (), None), None, None)


@asynccontextmanager
async def kernel_over(link: DeviceLink, **assembly: Any) -> AsyncIterator[Kernel]:
    """A kernel with nothing uploaded; closed afterwards, its pages recounted."""
    with tempfile.TemporaryDirectory(prefix="cadenza-bench-") as state:
        kernel = await assemble(link, wordless(link), Assembly(Path(state), **assembly))
        try:
            yield kernel
            kernel.recount()
        finally:
            await kernel.close()


def null_link(**device: Any) -> LocalLink:
    return LocalLink(NullDevice(**device))


def batch(rows: int, before: int, count: int, step: int) -> Batch:
    """`rows` rows of `count` tokens after `before`, each in pages of its own; the last of each is sampled, greedily."""
    pages = -(-(before + count) // PAGE_TOKENS)
    held = np.arange(rows * pages, dtype=np.int32).reshape(rows, pages)
    offsets = np.arange(before, before + count)
    each, ends = np.arange(rows + 1, dtype=np.int32), np.arange(1, rows + 1, dtype=np.int32) * count - 1
    return Batch(
        step, tokens=np.full(rows * count, 5, np.int32), positions=np.tile(offsets, rows).astype(np.int32),
        slots=(held[:, offsets // PAGE_TOKENS] * PAGE_TOKENS + offsets % PAGE_TOKENS).ravel().astype(np.int32),
        row_starts=each * np.int32(count), segment_starts=each,
        segment_tokens=np.full(rows, before + count, np.int32),
        segment_firsts=np.zeros(rows, np.int32), segment_skips=np.zeros(rows, np.int32),
        segment_shifts=np.zeros(rows, np.int32), page_starts=each * np.int32(pages), pages=held.ravel(),
        contiguous=np.ones(rows, np.uint8), visible_starts=np.zeros(rows + 1, np.int32), sample_tokens=ends,
        sample_lanes=np.full(rows, -1, np.int32), temperature=np.zeros(rows, np.float32),
        top_k=np.zeros(rows, np.int32), top_p=np.ones(rows, np.float32), min_p=np.zeros(rows, np.float32),
        seeds=np.zeros(rows, np.uint64), draws=np.zeros(rows, np.int64), sample_masks=np.full(rows, -1, np.int32),
    )  # fmt: skip


def run(description: str, measure: Callable[[bool], Coroutine[Any, Any, Figures]]) -> None:
    """The command line of a benchmark: `--quick`, progress as plain lines, the figures as the last line."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--quick", action="store_true", help="under 50 seconds on two cores")
    quick = parser.parse_args().quick
    figures = asyncio.run(measure(quick))
    print(json.dumps({key: round(value, 4) if isinstance(value, float) else value for key, value in figures.items()}))
