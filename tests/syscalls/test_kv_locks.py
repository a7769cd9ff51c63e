"""Interface `kv`: advisory locks, waited for like everything else."""

from __future__ import annotations

import pytest

from cadenza.kernel.process import Process
from cadenza.kvfs.errors import Denied, LimitExceeded, NotFound

from .asking import CREATE
from .desk import Desk, ProcessLimits, in_loop

READ = {"read"}
BOTH = {"read", "append"}


async def ready(desk: Desk, process: Process, *handles: int) -> list[int]:
    found: list[int] = await desk.wait(process, *handles, until="any", timeout_ns=0)
    return found


@in_loop
async def test_exclusive_locks_are_held_one_after_the_other() -> None:
    async with Desk() as desk:
        one, two, three = desk.spawn(), desk.spawn(), desk.spawn()
        files = [desk.ask(process, "kv.open", "book", CREATE) for process in (one, two, three)]
        first, second, third = (desk.ask(process, "kv.lock", file, True)
                                for process, file in zip((one, two, three), files, strict=True))
        assert await ready(desk, one, first) == [first]
        assert await ready(desk, two, second) == await ready(desk, three, third) == []
        desk.ask(one, "events.close", first)
        assert await ready(desk, two, second) == [second]
        assert await ready(desk, three, third) == []
        two.kill()
        assert await desk.wait(three, third) == [third]


@in_loop
async def test_shared_locks_wait_behind_an_exclusive_one_that_came_before() -> None:
    async with Desk() as desk:
        process = desk.spawn()
        file = desk.ask(process, "kv.create")
        locks = [desk.ask(process, "kv.lock", file, exclusive) for exclusive in (False, False, True, False, False)]
        assert await ready(desk, process, *locks) == locks[:2]
        desk.ask(process, "events.close", locks[0])
        assert await ready(desk, process, *locks[1:]) == locks[1:2]
        desk.ask(process, "events.close", locks[1])
        assert await ready(desk, process, *locks[2:]) == locks[2:3]
        desk.ask(process, "events.close", locks[2])
        assert await ready(desk, process, *locks[3:]) == locks[3:]


@in_loop
async def test_who_gives_up_waiting_lets_those_behind_go_on() -> None:
    async with Desk() as desk:
        process = desk.spawn()
        file = desk.ask(process, "kv.create")
        held, given_up, behind = (desk.ask(process, "kv.lock", file, exclusive) for exclusive in (False, True, False))
        assert await ready(desk, process, held, given_up, behind) == [held]
        desk.ask(process, "events.close", given_up)
        assert await ready(desk, process, held, behind) == [held, behind]
        assert desk.kernel.locks.statistics() == {"held": 2, "waiting": 0}


@in_loop
async def test_a_wait_for_a_lock_is_woken_and_times_out() -> None:
    async with Desk() as desk:
        holder, waiter = desk.spawn(), desk.spawn()
        mine, theirs = (desk.ask(process, "kv.open", "book", CREATE) for process in (holder, waiter))
        lock, wanted = desk.ask(holder, "kv.lock", mine, True), desk.ask(waiter, "kv.lock", theirs, False)
        assert await desk.wait(waiter, wanted, timeout_ns=2_000_000) == []
        suspended = desk.ask(waiter, "events.wait", [wanted], "all", None, [])
        woken: list[bool] = []
        suspended.subscribe(lambda: woken.append(True))
        assert not woken
        desk.ask(holder, "events.close", lock)
        assert woken == [True]
        assert suspended.answer() == [wanted]


@in_loop
async def test_nobody_is_kept_from_the_file_and_a_lock_outlives_its_descriptor() -> None:
    async with Desk() as desk:
        one, two = desk.spawn(), desk.spawn()
        file, same = (desk.ask(process, "kv.open", "book", CREATE) for process in (one, two))
        lock = desk.ask(one, "kv.lock", file, True)
        desk.ask(one, "kv.close", file)
        desk.ask(two, "kv.truncate", same, 0)
        desk.ask(two, "kv.unlink", "book")
        wanted = desk.ask(two, "kv.lock", same, True)
        assert await ready(desk, two, wanted) == []
        another = desk.ask(two, "kv.lock", desk.ask(two, "kv.open", "book", CREATE), True)
        assert await ready(desk, two, another) == [another]
        desk.ask(one, "events.close", lock)
        assert await ready(desk, two, wanted) == [wanted]
        desk.ask(two, "kv.unlink", "book")


@in_loop
async def test_an_exclusive_lock_needs_the_right_to_append() -> None:
    async with Desk() as desk:
        ada, bob = desk.spawn("ada"), desk.spawn("bob")
        desk.ask(ada, "kv.open", "/shared/book", CREATE)
        theirs = desk.ask(bob, "kv.open", "/shared/book", READ)
        with pytest.raises(Denied):
            desk.ask(bob, "kv.lock", theirs, True)
        assert await ready(desk, bob, desk.ask(bob, "kv.lock", theirs, False))
        with pytest.raises(NotFound):
            desk.ask(bob, "kv.lock", 99, False)
        desk.ask(ada, "kv.unlink", "/shared/book")


@in_loop
async def test_locks_are_handles() -> None:
    async with Desk(limits=ProcessLimits(handles=2)) as desk:
        process = desk.spawn()
        file = desk.ask(process, "kv.create")
        locks = [desk.ask(process, "kv.lock", file, False) for _ in range(2)]
        with pytest.raises(LimitExceeded, match="2 handles"):
            desk.ask(process, "kv.lock", file, True)
        for lock in locks:
            desk.ask(process, "events.close", lock)
        assert desk.kernel.locks.statistics() == {"held": 0, "waiting": 0}
