"""Whose turn it is to run, and the slices themselves."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import pytest

from cadenza.kernel.limits import AGING_SECONDS
from cadenza.kernel.process_scheduler import ProcessScheduler
from cadenza.kernel.turns import Turns
from cadenza.kernel.wasm.seams import Advance

SLICE_SECONDS = 0.001


class FakeProcess:
    """Runs `slices` slices, the last of which blocks it; `ran` is told of each."""

    def __init__(self, owner: str, priority: int = 0, slices: int = 1, ran: list[Any] | None = None) -> None:
        self.owner, self.priority, self.slices = owner, priority, slices
        self.ran = ran if ran is not None else []

    def advance(self) -> Advance:
        self.slices -= 1
        self.ran.append(self)
        return Advance.READY if self.slices else Advance.BLOCKED


def queued(*processes: FakeProcess) -> Turns:
    turns = Turns()
    for process in processes:
        turns.add(process)  # type: ignore[arg-type]
    return turns


def taken(turns: Turns, count: int, now: float = 0.0) -> list[Any]:
    return [turns.take(now) for _ in range(count)]


def test_programs_of_a_user_take_turns() -> None:
    processes = [FakeProcess("ada") for _ in range(3)]
    turns = queued(*processes)
    assert (len(turns), taken(turns, 4)) == (3, [*processes, None])
    assert not turns


def test_a_user_of_a_thousand_programs_delays_another_s_one_by_a_slice() -> None:
    many = [FakeProcess("many") for _ in range(1000)]
    turns = queued(*many)
    assert turns.take(0.0) is many[0]
    lone = FakeProcess("one")
    turns.add(lone)  # type: ignore[arg-type]
    assert taken(turns, 3) == [many[1], lone, many[2]]


def test_users_alternate_slice_by_slice() -> None:
    first, second = FakeProcess("ada", slices=9), FakeProcess("bob", slices=9)
    turns = queued(first, second)
    order = []
    for _ in range(6):
        process: Any = turns.take(0.0)
        order.append(process)
        turns.add(process)
    assert order == [first, second] * 3


def test_the_highest_priority_goes_first() -> None:
    low, high, middle = FakeProcess("ada", 0), FakeProcess("ada", 9), FakeProcess("bob", 5)
    assert taken(queued(low, high, middle), 4) == [high, middle, low, None]


def test_what_was_passed_over_for_long_has_one_turn() -> None:
    high, low = FakeProcess("ada", 3), FakeProcess("ada")
    turns = queued(high, low)
    order: list[Any] = []
    for now in (0.0, AGING_SECONDS / 2, AGING_SECONDS, AGING_SECONDS, 1.5 * AGING_SECONDS):
        process: Any = turns.take(now)
        order.append(process)
        turns.add(process)
    assert order == [high, high, low, high, high]


def test_the_scheduler_runs_slices_until_nobody_is_ready() -> None:
    async def test() -> None:
        scheduler, ran = ProcessScheduler(), []
        first, second = FakeProcess("ada", slices=2, ran=ran), FakeProcess("ada", slices=1, ran=ran)
        for process in (first, second):
            scheduler.make_ready(process)  # type: ignore[arg-type]
        assert scheduler.ready() == 2
        await asyncio.sleep(0)
        assert (ran, scheduler.slices, scheduler.ready()) == ([first, second, first], 3, 0)
    asyncio.run(test())


def test_a_fault_of_ours_in_one_slice_does_not_stop_the_others() -> None:
    class Faulty(FakeProcess):
        def advance(self) -> Advance:
            raise RuntimeError("out of cheese")

    async def test() -> None:
        faults: list[Any] = []
        asyncio.get_running_loop().set_exception_handler(lambda loop, context: faults.append(context["exception"]))
        scheduler, ran = ProcessScheduler(), []
        for process in (Faulty("ada"), FakeProcess("ada", ran=ran)):
            scheduler.make_ready(process)  # type: ignore[arg-type]
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert len(ran) == 1
        assert [str(fault) for fault in faults] == ["out of cheese"]
    asyncio.run(test())


@pytest.mark.parametrize("seeds", [range(first, first + 250) for first in range(0, 1000, 250)])
def test_nobody_starves(seeds: range) -> None:
    """The bound of docs/scheduling.md, over random users, priorities and arrivals."""
    for seed in seeds:
        check_bound(random.Random(seed))


def check_bound(chosen: random.Random) -> None:
    """Each priority has a slice every AGING_SECONDS, and a slice of each other later; and there, each user in turn: so
    a program sees at most as many slices of its priority as it has neighbours in its user's queue, times the users."""
    users, priorities, now, turns = chosen.randint(1, 5), chosen.randint(1, 4), 0.0, Turns()
    served, slices = [0.0] * priorities, [0] * priorities
    ready: list[dict[Any, int]] = [{} for _ in range(priorities)]          # and the slices they may see before theirs
    for _ in range(100):
        for _ in range(chosen.choice([0, 0, 1, 4])):
            add(turns, FakeProcess(str(chosen.randrange(users)), chosen.randrange(priorities)), users, ready, slices)
        process: Any = turns.take(now)
        if process is None:
            served = [now] * priorities
            continue
        now += SLICE_SECONDS * chosen.choice([1, 1, 50])
        at = process.priority
        served[at], slices[at] = now, slices[at] + 1
        assert slices[at] <= ready[at].pop(process)
        if chosen.random() < 0.6:
            add(turns, process, users, ready, slices)
        for priority, waiting in enumerate(ready):
            served[priority] = served[priority] if waiting else now
            assert now - served[priority] <= AGING_SECONDS + (priorities + 1) * 50 * SLICE_SECONDS


def add(turns: Turns, process: Any, users: int, ready: list[dict[Any, int]], slices: list[int]) -> None:
    turns.add(process)
    waiting = ready[process.priority]
    ahead = sum(other.owner == process.owner for other in waiting)
    waiting[process] = slices[process.priority] + (ahead + 1) * users
