"""What a process does, what it waits for, and where its pages lie."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from typing import Any

import numpy as np
import pytest

from cadenza.kernel.activity import Activity, PageCount, count_pages
from cadenza.kernel.limits import STEP_TOKENS
from cadenza.kernel.process import Process
from cadenza.kernel.runs import Run
from cadenza.kvfs.directory import FileSystem
from cadenza.kvfs.file import File
from cadenza.kvfs.limits import FileLimits
from cadenza.kvfs.pool import PagePool
from cadenza.kvfs.tiers import Tiers
from tests.syscalls.desk import Desk, a_pass, a_run, a_sampler, in_loop

LATER_NS = 3_600_000_000_000


async def blocked(desk: Desk, process: Process, *handles: int, intents: list[dict[str, Any]] | None = None) -> Activity:
    """What it is doing, when it has just begun to wait for `handles`."""
    def wait() -> None:
        desk.ask(process, "events.wait", list(handles), "any", None, intents or []).subscribe(lambda: None)

    desk.runtime.guests[process.pid].turns.append(wait)
    process.wake()
    while process.state != "waiting":
        await asyncio.sleep(0)
    return desk.kernel.activity(process)


# --- states ---

@in_loop
async def test_a_process_is_ready_until_it_waits() -> None:
    async with Desk() as desk:
        process = desk.spawn()
        assert desk.kernel.activity(process).state == "ready"
        await desk.settle()
        now = desk.kernel.activity(process)
        assert (now.state, now.waiting_for, now.tokens, now.pages) == ("waiting", "", 0, PageCount())
        assert now.seconds >= 0


@in_loop
async def test_what_it_waits_for_is_what_it_says_or_of_what_kind_it_is() -> None:
    async with Desk() as desk:
        process, other = desk.spawn(), desk.spawn()
        await desk.settle()
        inbox, timer = desk.ask(process, "channel.receive"), desk.ask(process, "events.timer", LATER_NS)
        desk.ask(process, "process.signals")                 # nobody waits for it
        assert (await blocked(desk, process, inbox, timer)).waiting_for == "message or timer"
        queue = desk.ask(process, "channel.pull", "answers")
        said = [{"handle": queue, "tool": "search", "expected_ns": None}]
        assert (await blocked(desk, process, queue, timer, intents=said)).waiting_for == "search or timer"
        child = desk.ask(other, "process.wait-child", process.pid)
        assert (await blocked(desk, other, child)).waiting_for == "child"


@in_loop
async def test_a_process_that_waits_for_its_passes_does_what_they_do() -> None:
    async with Desk(context_tokens=100_000, pages=8192) as desk:
        process = desk.spawn()
        await desk.settle()
        file = desk.ask(process, "kv.create")
        handle = desk.ask(process, "inference.decode", a_run(file, [1] * 9 * STEP_TOKENS, max_tokens=50_000,
                                                                    deliver_every=50_000))
        states = [desk.kernel.activity(process).state]
        run = process.handles.get(handle, Run)
        while len(run.tokens) < 20 and not run.over:
            await asyncio.sleep(0)
            states.append(desk.kernel.activity(process).state)
        assert list(dict.fromkeys(states)) == ["queued", "prefilling", "decoding"]
        assert (await blocked(desk, process, handle)).waiting_for == "tokens"
        assert desk.kernel.activity(process).tokens == len(run.tokens)
        taken = desk.ask(process, "inference.take-tokens", handle).tokens
        assert (process.tokens, desk.kernel.activity(process).tokens) == (len(taken), len(run.tokens))
        assert desk.kernel.activity(process).pages.device > 0
        desk.ask(process, "events.close", handle)
        assert (desk.kernel.activity(process).state, process.tokens) == ("waiting", len(taken))


@in_loop
async def test_samples_of_passes_count_as_tokens() -> None:
    async with Desk() as desk:
        process = desk.spawn()
        file = desk.ask(process, "kv.create")
        handle = desk.ask(process, "inference.forward", a_pass(file, [1, 2, 3], samples=[
            {"row": 2, "sampler": a_sampler()}] * 3))
        await desk.wait(process, handle)
        desk.ask(process, "inference.take-pass", handle)
        assert desk.kernel.activity(process).tokens == 3


# --- pages ---

def system(pages: int = 64) -> tuple[FileSystem, Tiers]:
    files = FileSystem(PagePool(pages, 4), FileLimits(1000, 0, 1024, 16, 256, 1024, 1 << 20))
    return files, Tiers(files.pool, 8)


def filled(files: FileSystem, tokens: int) -> File:
    file = files.create("ada")
    file.extend(np.arange(tokens, dtype=np.int32), np.arange(tokens, dtype=np.int32))
    return file


def test_pages_are_counted_once_by_where_they_lie() -> None:
    files, tiers = system()
    file = filled(files, 40)
    fork = file.fork()
    mine = Counter([file, fork, fork])
    assert count_pages(mine, files.pool, tiers) == PageCount(device=10)
    pages = file.pages
    tiers.put_on_host(pages[0], tiers.take_host_pages(1)[0], 0)
    assert count_pages(mine, files.pool, tiers).device == 10          # on both: it is the device that counts
    slot: Any = object()
    tiers.stored[pages[1]] = slot
    files.pool.leave(pages[:4])
    assert count_pages(mine, files.pool, tiers) == PageCount(device=6, host=1, disk=1, lost=2)


def test_shared_are_pages_that_somebody_else_holds() -> None:
    files, tiers = system()
    file = filled(files, 40)

    def shared(*held: File) -> int:
        return count_pages(Counter(held), files.pool, tiers).shared

    assert shared(file) == 0
    fork = files.fork("bob", file)
    assert (shared(file), shared(fork), shared(file, fork)) == (10, 10, 0)
    fork.extend([7], [40])                                            # a table of its own, and an eleventh page
    assert (shared(file), shared(fork), shared(file, fork)) == (10, 10, 0)
    files.close(fork)
    assert shared(file) == 0
    cut = files.extract("bob", file, [(4, 8)])
    assert (shared(file), shared(cut), shared(file, cut)) == (2, 2, 0)
    file.open_count += 1                                              # another process has opened it
    assert shared(file) == 10


@pytest.mark.parametrize("seed", range(20))
def test_shared_pages_are_those_that_other_files_reach(seed: int) -> None:
    draw = random.Random(seed)
    files, tiers = system(4096)
    every = [filled(files, draw.randrange(1, 400)) for _ in range(3)]
    for _ in range(30):
        file = draw.choice(every)
        kind = draw.randrange(4)
        if kind == 0:
            every.append(files.fork("ada", file))
        elif kind == 1:
            first = draw.randrange(len(file))
            every.append(files.extract("ada", file, [(first, draw.randrange(1, len(file) - first + 1))]))
        elif kind == 2:
            file.extend(np.arange(9, dtype=np.int32), np.arange(9, dtype=np.int32))
        else:
            file.truncate(draw.randrange(1, len(file) + 1))
    for _ in range(10):
        mine = Counter(draw.sample(every, draw.randrange(1, len(every))))
        counted = count_pages(mine, files.pool, tiers)
        held = {page for file in mine for page in file.pages}
        others = {page for file in every if file not in mine for page in file.pages}
        assert (counted.device, counted.shared) == (len(held), len(held & others))
