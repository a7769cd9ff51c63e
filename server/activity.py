"""What goes on, as a message of the wire. It is put together in short slices, however many processes there are."""

from __future__ import annotations

import asyncio
import heapq
import time
from collections.abc import AsyncIterator, Iterable
from dataclasses import asdict
from typing import TYPE_CHECKING, TypeVar

from cadenza.kernel.activity import works_of
from cadenza.sdk.proto.cadenza.v1 import processes_pb2 as pb
from cadenza.server.files import tier_messages
from cadenza.server.limits import TOP_PROCESSES, TOP_PROCESSES_MOST, TOP_SLICE_SECONDS

if TYPE_CHECKING:
    from cadenza.kernel.kernel import Kernel
    from cadenza.kernel.process import Process

T = TypeVar("T")


async def top_message(kernel: Kernel, user: str, asked: int) -> pb.TopResponse:
    """Of `asked` processes of `user`, or as many as there are; 0: of TOP_PROCESSES."""
    alive = [process for process in kernel.processes(user) if process.exit is None]
    busiest = await _busiest(alive, min(asked or TOP_PROCESSES, TOP_PROCESSES_MOST))
    told = [_activity_message(kernel, process) async for process in paced(busiest) if process.exit is None]
    return pb.TopResponse(load=_load_message(kernel), processes=told, alive=len(alive))


async def _busiest(alive: list[Process], count: int) -> list[Process]:
    """First those with passes under way, then those that ran last."""
    ranks = {process: (any(works_of(process)), process.since) async for process in paced(alive)}
    return heapq.nlargest(count, ranks, key=ranks.__getitem__)


async def paced(items: Iterable[T]) -> AsyncIterator[T]:
    """The items; between two of them others get their turn, as soon as TOP_SLICE_SECONDS have passed."""
    ends = time.monotonic() + TOP_SLICE_SECONDS
    for item in items:
        yield item
        if time.monotonic() >= ends:
            await asyncio.sleep(0)
            ends = time.monotonic() + TOP_SLICE_SECONDS


def _activity_message(kernel: Kernel, process: Process) -> pb.Activity:
    now = kernel.activity(process)
    return pb.Activity(
        pid=process.pid, image_digest=process.image.digest, image_name=process.image.name, state=now.state,
        waiting_for=now.waiting_for, seconds=now.seconds, priority=process.priority, tokens=now.tokens,
        pages=pb.PageCount(**asdict(now.pages)),
    )  # fmt: skip


def _load_message(kernel: Kernel) -> pb.Load:
    now = kernel.load()
    return pb.Load(
        seconds=now.seconds, device_seconds=now.device_seconds, steps=now.steps, tokens=now.tokens,
        samples=now.samples, rows=now.rows, preemptions=now.preemptions, swapped_out_pages=now.swapped_out,
        swapped_in_pages=now.swapped_in, work=now.work, queued=now.queued, steps_under_way=now.steps_under_way,
        processes=now.processes, ready=now.ready, tiers=tier_messages(kernel),
    )  # fmt: skip
