"""However a process ends, everything that it held comes back."""

from __future__ import annotations

import asyncio

import pytest

from cadenza.kernel.device.null_device import CostModel
from cadenza.kernel.limits import ENDED_PROCESSES, IDLE_SECONDS
from cadenza.kernel.process import Process
from cadenza.kvfs.errors import Closed, Invalid, NotFound

from .asking import CREATE, filled
from .desk import NO_CHANNELS, Desk, a_pass, a_run, in_loop

SLOW = CostModel(fixed_ms=3_600_000.0)
LATER_NS = 3_600_000_000_000


def hold_one_of_each(desk: Desk, process: Process) -> None:
    """Files, forks, passes and runs under way, timers, subscriptions, queues, children watched."""
    file = desk.ask(process, "kv.create")
    fork = desk.ask(process, "kv.fork", file)
    desk.ask(process, "inference.decode", a_run(file, [1] * 40, max_tokens=1000))
    desk.ask(process, "inference.forward", a_pass(fork, [1] * 4000))
    desk.ask(process, "inference.decode", a_run(desk.ask(process, "kv.create"), [1],
                                                reads=[desk.ask(process, "kv.create")]))
    desk.ask(process, "events.timer", LATER_NS)
    desk.ask(process, "channel.subscribe", "news")
    desk.ask(process, "channel.pull", "jobs")
    desk.ask(process, "channel.receive")
    child = desk.ask(process, "process.spawn", f"program-of-{process.owner}", "{}", False)
    desk.ask(process, "process.wait-child", child)


@pytest.mark.parametrize("steps", [0, 1, 3, 50])
@pytest.mark.parametrize("cost", [SLOW, CostModel()])
@in_loop
async def test_a_killed_process_gives_everything_back_wherever_its_work_stands(steps: int, cost: CostModel) -> None:
    async with Desk(cost=cost) as desk:
        process = desk.spawn()
        hold_one_of_each(desk, process)
        for _ in range(steps):
            await asyncio.sleep(0)
        process.kill()
        assert process.usage() == {"files": 0, "kv_pages": 0, "kv_tokens": 0, "handles": 0, "children": 0,
                                   "output_bytes": 0}
        assert desk.files.pool.used == 0
        assert desk.kernel.exchange.statistics() == NO_CHANNELS
        assert desk.kernel.statistics()["processes_alive"] == 0
        desk.check_all_returned()
        await desk.settle()
        desk.check_all_returned()


@in_loop
async def test_a_neighbour_does_not_notice() -> None:
    async def said(disturbed: bool) -> list[int]:
        async with Desk(cost=CostModel(fixed_ms=1.0)) as desk:
            process, neighbour = desk.spawn(), desk.spawn("bob")
            file = desk.ask(neighbour, "kv.create")
            run = desk.ask(neighbour, "inference.decode", a_run(file, [3, 4], max_tokens=12, deliver_every=12))
            if disturbed:
                hold_one_of_each(desk, process)
                await desk.settle()
            process.kill()
            await desk.wait(neighbour, run)
            tokens: list[int] = desk.ask(neighbour, "inference.take-tokens", run).tokens
            return tokens
    assert await said(disturbed=True) == await said(disturbed=False)


@in_loop
async def test_a_run_under_way_is_undone_in_a_named_file() -> None:
    async with Desk(cost=CostModel(fixed_ms=1.0)) as desk:
        process, later = desk.spawn(), desk.spawn()
        file = await filled(desk, process, 20, "book")
        run = desk.ask(process, "inference.decode", a_run(file, [1], max_tokens=1000))
        await desk.wait(process, run)
        process.kill()
        again = desk.ask(later, "kv.open", "book", CREATE)
        status = desk.ask(later, "kv.stat", again)
        assert (status.tokens, status.busy) == (20, False)
        await desk.wait(later, desk.ask(later, "inference.decode", a_run(again, [1])))


@in_loop
async def test_an_ended_process_hears_nothing_more() -> None:
    async with Desk() as desk:
        process = desk.spawn()
        process.kill("killed", "enough")
        process.kill("failed", "again")
        assert process.exit is not None
        assert (process.exit.ending, process.exit.message) == ("killed", "enough")
        with pytest.raises(Closed):
            process.deliver("hello")
        with pytest.raises(Closed):
            process.send_signal("user")


@in_loop
async def test_ended_processes_are_remembered_and_the_oldest_forgotten() -> None:
    async with Desk() as desk:
        first, second = desk.spawn(), desk.spawn()
        with pytest.raises(Invalid, match="alive"):
            desk.kernel.forget("ada", first.pid)
        for process in (first, second):
            process.kill()
        for _ in range(ENDED_PROCESSES - 1):
            desk.spawn().kill()
        with pytest.raises(NotFound):
            desk.kernel.process("ada", first.pid)
        assert desk.kernel.process("ada", second.pid).exit is not None
        desk.kernel.forget("ada", second.pid)
        with pytest.raises(NotFound):
            desk.kernel.process("ada", second.pid)


@in_loop
async def test_the_kernel_recounts_when_it_has_been_idle() -> None:
    async with Desk() as desk:
        process = desk.spawn()
        await filled(desk, process, 5)
        faults: list[object] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: faults.append(context["exception"]))
        page = desk.files.pool.allocate(1)[0]
        await asyncio.sleep(IDLE_SECONDS * 1.5)
        assert [type(fault) for fault in faults] == [AssertionError]
        desk.files.pool.release(page)


@in_loop
async def test_statistics_tell_what_there_is() -> None:
    async with Desk(cost=SLOW) as desk:
        process = desk.spawn()
        hold_one_of_each(desk, process)
        await desk.settle()
        figures = desk.kernel.statistics()
        for name in ("processes_alive", "processes_ready", "processes_waiting", "slices", "engine_work", "engine_steps",
                     "engine_tokens", "engine_steps_under_way", "engine_lanes", "engine_preemptions",
                     "engine_device_seconds", "kv_files", "kv_named", "kv_tokens", "channels_topics", "channels_queues",
                     "wasm_guests"):
            assert name in figures
        assert figures["processes_alive"] == 2
        assert (figures["engine_work"], figures["engine_lanes"]) == (3, 2)
        assert (figures["channels_topics"], figures["channels_queues"]) == (1, 1)
        assert any(name.startswith("kv_") and "free" in name for name in figures)
