"""Profiling: what steps cost on the device at hand, found out at boot with a few steps of nothing in particular."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import numpy as np

from cadenza.kernel.costs import Costs, fitted
from cadenza.kernel.device.batch import Batch, Int32, StepResult
from cadenza.kvfs.errors import DeviceLost, Internal

if TYPE_CHECKING:
    from cadenza.kernel.device.link import DeviceLink

STEP_TOKENS = (1, 16, 64, 256, 512, 1024, 2048)
ENOUGH_SECONDS = 0.2                  # a step this long is the last: a slow device is not kept from its work
MOVED_PAGES = 32
REPEATS = 2, 5                        # at least; at most, of short ones: the shortest is believed


class _Prober:
    """Has the link for itself, one step at a time."""

    def __init__(self, link: DeviceLink) -> None:
        self._link = link
        self._steps = 0
        self._answer: asyncio.Future[StepResult] = asyncio.get_running_loop().create_future()
        link.connect(lambda result: self._answer.set_result(result), self._lost)

    def _lost(self, reason: str) -> None:
        if not self._answer.done():
            self._answer.set_exception(DeviceLost(f"the device was lost while it was profiled: {reason}"))

    async def seconds(self, batch: Batch) -> float:
        """What the device says that the step took."""
        self._answer = asyncio.get_running_loop().create_future()
        self._link.submit(batch)
        result = await self._answer
        if result.error:
            raise Internal(f"the device could not be profiled: {result.error}")
        return result.seconds


async def profile(link: DeviceLink) -> Costs:
    """Before anything else uses `link`, whose pages are all free and are so again. Raises DeviceLost, Internal."""
    prober, facts = _Prober(link), link.facts
    most = min(facts.pages * facts.page_tokens, facts.context_tokens)
    steps: list[tuple[int, float]] = []
    for tokens in STEP_TOKENS:
        if tokens > most or (steps and steps[-1][1] > ENOUGH_SECONDS):
            break
        steps.append((tokens, await _shortest(prober, _prefill(tokens, facts.page_tokens))))
    pages = min(MOVED_PAGES, facts.pages, facts.host_pages)
    page_seconds = Costs().page_seconds
    if pages:
        page_seconds = await _shortest(prober, _move(pages)) / pages
    return fitted(steps, page_seconds) if len(steps) > 1 else Costs(page_seconds=page_seconds)


async def _shortest(prober: _Prober, batch: Batch) -> float:
    least, most = REPEATS
    took: list[float] = []
    while len(took) < least or (len(took) < most and sum(took) < ENOUGH_SECONDS):
        took.append(await prober.seconds(batch))
    return min(took)


def _prefill(tokens: int, page_tokens: int) -> Batch:
    """One row, in the first pages."""
    pages = -(-tokens // page_tokens)
    return Batch(
        0, tokens=np.zeros(tokens, np.int32), positions=_count(tokens), slots=_count(tokens),
        row_starts=_int32(0, tokens), segment_starts=_int32(0, 1), segment_tokens=_int32(tokens),
        segment_firsts=_int32(0), segment_skips=_int32(0), segment_shifts=_int32(0), page_starts=_int32(0, pages),
        pages=_count(pages), contiguous=np.ones(1, np.uint8), visible_starts=_int32(0, 0),
    )  # fmt: skip


def _move(pages: int) -> Batch:
    """Out to the host tier."""
    return Batch(0, swap_outs=np.stack([_count(pages), _count(pages)], 1))


def _count(count: int) -> Int32:
    return np.arange(count, dtype=np.int32)


def _int32(*numbers: int) -> Int32:
    return np.array(numbers, np.int32)
