"""asyncio on the guest's loop: the toy's clock is virtual, so every time is exact."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine
from typing import Any, TypeVar

import pytest

from cadenza.sdk.guest.cadenza import errors, events, loop

T = TypeVar("T")
SECOND = 1_000_000_000
pytestmark = pytest.mark.usefixtures("toy")


def run(main: Coroutine[Any, Any, T]) -> T:
    return loop.new().run(main)


def test_a_lone_task_waits_in_the_kernel_without_a_turn_of_the_loop(toy: Any) -> None:
    async def main() -> int:
        for _ in range(5):
            await events.timer(1)
        return 7

    assert run(main()) == 7
    assert toy.now == 5 * SECOND
    assert toy.calls["wait"] == 5


def test_gathered_waits_overlap_and_share_system_calls(toy: Any) -> None:
    async def one(seconds: float) -> float:
        await events.timer(seconds)
        return seconds

    async def main() -> list[float]:
        return await asyncio.gather(*(one(seconds) for seconds in (3, 1, 2, 2)))

    assert run(main()) == [3, 1, 2, 2]
    assert toy.now == 3 * SECOND
    assert toy.calls["wait"] == 3


def test_sleep_orders_by_time(toy: Any) -> None:
    said: list[int] = []

    async def say(number: int) -> None:
        await asyncio.sleep(number)
        said.append(number)

    async def main() -> None:
        await asyncio.gather(say(3), say(1), say(2))

    run(main())
    assert said == [1, 2, 3]
    assert toy.now == pytest.approx(3 * SECOND, abs=10)


def test_timeout_cancels_what_takes_longer(toy: Any) -> None:
    async def main() -> str:
        try:
            async with asyncio.timeout(1):
                await events.timer(10)
        except TimeoutError:
            return "late"
        return "in time"

    assert run(main()) == "late"
    assert toy.now < 2 * SECOND


def test_wait_for_a_future_that_comes_in_time() -> None:
    async def main() -> str:
        return await asyncio.wait_for(asyncio.sleep(1, "done"), 5)

    assert run(main()) == "done"


def test_cancelled_task_is_told_and_its_cleanup_may_await() -> None:
    told: list[str] = []

    async def worker() -> None:
        try:
            await events.timer(100)
        finally:
            await asyncio.sleep(1)
            told.append("cleaned")

    async def main() -> None:
        task = asyncio.create_task(worker())
        await asyncio.sleep(1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    run(main())
    assert told == ["cleaned"]


def test_queue_event_and_task_group_work() -> None:
    async def main() -> list[int]:
        queue: asyncio.Queue[int] = asyncio.Queue(1)
        over = asyncio.Event()
        taken: list[int] = []

        async def produce() -> None:
            for number in range(4):
                await queue.put(number)
            over.set()

        async def consume() -> None:
            while not (over.is_set() and queue.empty()):
                taken.append(await queue.get())

        async with asyncio.TaskGroup() as group:
            group.create_task(produce())
            group.create_task(consume())
        return taken

    assert run(main()) == [0, 1, 2, 3]


def test_tasks_left_over_are_cancelled_when_main_returns() -> None:
    ended: list[str] = []

    async def forever() -> None:
        try:
            await asyncio.Future()
        except asyncio.CancelledError:
            ended.append("cancelled")
            raise

    async def main() -> None:
        asyncio.create_task(forever())  # noqa: RUF006 - left over on purpose
        await asyncio.sleep(0)

    run(main())
    assert ended == ["cancelled"]


def test_deadlock_is_an_error_that_says_so() -> None:
    async def main() -> None:
        await asyncio.Future()

    with pytest.raises(RuntimeError, match="deadlock"):
        run(main())


def test_threads_are_refused_with_the_reason() -> None:
    async def main() -> None:
        await asyncio.to_thread(print)

    with pytest.raises(RuntimeError, match="one thread"):
        run(main())


def test_spinning_tasks_do_not_keep_handles_from_being_looked_at() -> None:
    async def main() -> int:
        task = asyncio.create_task(ready())
        turns = 0
        while not task.done():
            turns += 1
            assert turns < 1000, "the handle is ready, and nobody looks"
            await asyncio.sleep(0)
        return turns

    async def ready() -> None:
        await events.timer(0)

    assert run(main()) < 100


def test_closing_a_handle_wakes_who_awaits_it() -> None:
    async def main() -> None:
        handle = events.timer(100)

        async def waiter() -> None:
            await handle

        task = asyncio.create_task(waiter())
        await asyncio.sleep(0)
        handle.close()
        await task

    with pytest.raises(errors.Closed, match="closed by this program"):
        run(main())


def test_more_handles_than_one_wait_takes() -> None:
    count = loop.WAIT_HANDLES + 500

    async def one(number: int) -> int:
        await events.timer(number % 3)
        return number

    async def main() -> list[int]:
        return await asyncio.gather(*(one(number) for number in range(count)))

    assert run(main()) == list(range(count))


def test_cancelled_timers_do_not_pile_up() -> None:
    async def main() -> int:
        timers = loop.running()._timers
        for _ in range(1000):
            async with asyncio.timeout(1000):
                await asyncio.sleep(0)
        return len(loop.running()._timers) + 0 * len(timers)

    assert run(main()) <= 3 * loop.DEAD_TIMERS


def test_dropped_async_generator_is_closed() -> None:
    closed: list[str] = []

    async def numbers() -> AsyncIterator[int]:
        try:
            yield 1
            yield 2
        finally:
            await asyncio.sleep(0)
            closed.append("closed")

    async def main() -> None:
        async for _ in numbers():
            break
        await asyncio.sleep(1)

    run(main())
    assert closed == ["closed"]


def test_wait_blocks_for_any_or_all(toy: Any) -> None:
    first, second = events.timer(1), events.timer(2)
    assert events.wait([second, first]) == [first]
    assert events.wait([second, first], "all") == [second, first]
    assert toy.now == 2 * SECOND
    assert events.wait([events.timer(9)], timeout=1) == []


def test_refusal_becomes_the_class_of_its_errno() -> None:
    with pytest.raises(errors.NotFound, match="no 99") as caught:
        events.wait([events.Handle(99)])
    assert caught.value.errno == "not-found"


def test_every_errno_of_the_abi_has_a_class() -> None:
    from wit_world.imports.types import Errno

    assert {errno.name.lower().replace("_", "-") for errno in Errno} == set(errors.CLASSES)
