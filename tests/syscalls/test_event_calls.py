"""Interface `events`: the wait, timers, clocks, and the table of handles."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

import pytest

from cadenza.kernel.limits import TIMER_SECONDS, WAIT_HANDLES, ProcessLimits
from cadenza.kernel.process import Process
from cadenza.kvfs.errors import Invalid, LimitExceeded, NotFound

from .desk import NO_CHANNELS, Desk, a_pass, a_run, in_loop

LATER_NS = 3_600_000_000_000
SECOND_NS = 1_000_000_000


def woken(desk: Desk, process: Process, handles: list[int], until: str) -> list[bool]:
    """Begins a wait without end. The list gets an entry when it has ended."""
    wakes: list[bool] = []
    desk.ask(process, "events.wait", handles, until, None, []).subscribe(lambda: wakes.append(True))
    return wakes


# --- waiting ---

@in_loop
async def test_any_answers_those_that_are_ready_in_the_order_given() -> None:
    async with Desk() as desk:
        process = desk.spawn()
        late, soon, inbox = (desk.ask(process, "events.timer", d) for d in (LATER_NS, 0, 0))
        await asyncio.sleep(0.01)
        assert await desk.wait(process, inbox, late, soon, until="any") == [inbox, soon]
        assert await desk.wait(process, late, soon, until="any") == [soon]


@in_loop
async def test_any_blocks_until_the_first_is_ready() -> None:
    async with Desk() as desk:
        process = desk.spawn()
        late, inbox = desk.ask(process, "events.timer", LATER_NS), desk.ask(process, "channel.receive")
        waiting = asyncio.create_task(desk.wait(process, late, inbox, until="any"))
        await desk.settle()
        assert not waiting.done()
        process.deliver("hello")
        assert await waiting == [inbox]


@in_loop
async def test_all_blocks_until_the_last_is_ready() -> None:
    async with Desk() as desk:
        process = desk.spawn()
        signals, inbox = desk.ask(process, "process.signals"), desk.ask(process, "channel.receive")
        waiting = asyncio.create_task(desk.wait(process, signals, inbox))
        process.deliver("hello")
        await desk.settle()
        assert not waiting.done()
        process.send_signal("user")
        assert await waiting == [signals, inbox]


@pytest.mark.parametrize("until", ["any", "all"])
@in_loop
async def test_a_timeout_answers_what_is_ready_by_then(until: str) -> None:
    async with Desk() as desk:
        process = desk.spawn()
        late, inbox = desk.ask(process, "events.timer", LATER_NS), desk.ask(process, "channel.receive")
        assert await desk.wait(process, late, inbox, until=until, timeout_ns=SECOND_NS // 100) == []
        process.deliver("hello")
        assert await desk.wait(process, late, inbox, until=until, timeout_ns=0) == [inbox]


@pytest.mark.parametrize("until", ["any", "all"])
@in_loop
async def test_a_handle_named_twice_is_one(until: str) -> None:
    async with Desk() as desk:
        process = desk.spawn()
        inbox = desk.ask(process, "channel.receive")
        waiting = asyncio.create_task(desk.wait(process, inbox, inbox, until=until))
        await desk.settle()
        process.deliver("hello")
        assert await asyncio.wait_for(waiting, 20) == [inbox]
        assert await desk.wait(process, inbox, inbox, until=until) == [inbox]


@pytest.mark.parametrize("call", ["channel.receive", "process.signals"])
@in_loop
async def test_all_ends_for_two_handles_of_the_same_thing(call: str) -> None:
    async with Desk() as desk:
        process = desk.spawn()
        wakes = woken(desk, process, [desk.ask(process, call), desk.ask(process, call)], "all")
        process.deliver("hello")
        process.send_signal("user")
        assert wakes


@in_loop
async def test_all_is_not_deceived_by_a_message_that_another_takes() -> None:
    async with Desk() as desk:
        process, other = desk.spawn(), desk.spawn()
        pull, inbox = desk.ask(process, "channel.pull", "jobs"), desk.ask(process, "channel.receive")
        taker = desk.ask(other, "channel.pull", "jobs")
        wakes = woken(desk, process, [pull, inbox], "all")
        for text in ("one", "two"):
            desk.ask(other, "channel.push", "jobs", text)
            desk.ask(other, "channel.take-message", taker)
        desk.ask(other, "channel.push", "jobs", "three")
        assert not wakes, "the inbox is empty"
        process.deliver("hello")
        assert wakes


@in_loop
async def test_all_is_not_deceived_by_one_that_was_ready_at_first() -> None:
    async with Desk() as desk:
        process, other = desk.spawn(), desk.spawn()
        pull, inbox = desk.ask(process, "channel.pull", "jobs"), desk.ask(process, "channel.receive")
        taker = desk.ask(other, "channel.pull", "jobs")
        desk.ask(other, "channel.push", "jobs", "one")
        wakes = woken(desk, process, [pull, inbox], "all")
        desk.ask(other, "channel.take-message", taker)
        process.deliver("hello")
        assert not wakes, "the queue is empty"
        desk.ask(other, "channel.push", "jobs", "two")
        assert wakes


@pytest.mark.parametrize("until", ["any", "all"])
@in_loop
async def test_a_wait_for_nothing_sleeps_until_its_timeout(until: str) -> None:
    async with Desk() as desk:
        process = desk.spawn()
        began = time.monotonic()
        assert await desk.wait(process, until=until, timeout_ns=SECOND_NS // 20) == []
        assert time.monotonic() - began >= 0.04
        with pytest.raises(Invalid, match="never end"):
            desk.ask(process, "events.wait", [], until, None, [])


@in_loop
async def test_only_open_handles_can_be_waited_for() -> None:
    async with Desk() as desk:
        process, other = desk.spawn(), desk.spawn()
        timer = desk.ask(process, "events.timer", 0)
        desk.ask(other, "channel.receive")
        desk.ask(other, "channel.receive")
        for handles in ([timer, 2], [0], [2**32 - 1]):
            with pytest.raises(NotFound, match=f"handle {handles[-1]} is not open"):
                desk.ask(process, "events.wait", handles, "any", 0, [])


@in_loop
async def test_a_wait_takes_so_many_handles_and_no_more() -> None:
    async with Desk() as desk:
        process = desk.spawn()
        handles = [desk.ask(process, "events.timer", 0) for _ in range(WAIT_HANDLES + 1)]
        assert await desk.wait(process, *handles[1:], *handles[1:]) == handles[1:]
        with pytest.raises(LimitExceeded, match=f"at most {WAIT_HANDLES}") as refused:
            await desk.wait(process, *handles)
        assert refused.value.limit == "wait_handles"


@in_loop
async def test_a_killed_process_leaves_its_wait() -> None:
    async with Desk() as desk:
        process = desk.spawn()
        wait = desk.ask(process, "events.wait", [desk.ask(process, "channel.receive")], "any", LATER_NS, [])
        wakes: list[bool] = []
        wait.subscribe(lambda: wakes.append(True))
        process.kill()
        wait.abandon()
        wait.abandon()
        process.inbox.put("nobody hears")
        assert not wakes


@in_loop
async def test_what_is_waited_for_is_said_to_people() -> None:
    async with Desk() as desk:
        process = desk.spawn()
        inbox = desk.ask(process, "channel.receive")
        intent = {"handle": inbox, "tool": "search", "expected_ns": SECOND_NS}
        wait = desk.ask(process, "events.wait", [inbox], "any", None, [intent])
        wait.subscribe(lambda: None)
        assert process.waiting_for == "search"
        process.inbox.put("found")
        assert wait.answer() == [inbox]
        assert process.waiting_for == ""
        assert process.waits.times.forecast("ada", "search", 0.0, 1.0).remaining(0.0) > 0


@in_loop
async def test_a_wait_that_says_nothing_is_told_by_what_it_waits_for() -> None:
    async with Desk() as desk:
        process = desk.spawn()
        inbox, timer = desk.ask(process, "channel.receive"), desk.ask(process, "events.timer", LATER_NS)
        wait = desk.ask(process, "events.wait", [inbox, timer], "any", None, [])
        wait.subscribe(lambda: None)
        assert process.waiting_for == "message or timer"
        waiting = process.waits.waiting[process]
        assert waiting.remaining(asyncio.get_running_loop().time()) <= LATER_NS * 1e-9
        wait.abandon()
        assert not process.waits.waiting


# --- timers and clocks ---

@in_loop
async def test_a_timer_is_ready_once_its_delay_has_passed_and_stays_so() -> None:
    async with Desk() as desk:
        process = desk.spawn()
        began = desk.ask(process, "events.now")
        timer = desk.ask(process, "events.timer", SECOND_NS // 50)
        assert await desk.wait(process, timer, timeout_ns=0) == []
        assert await desk.wait(process, timer) == [timer]
        assert desk.ask(process, "events.now") - began >= SECOND_NS // 60
        assert await desk.wait(process, timer) == [timer]


@in_loop
async def test_delays_are_limited() -> None:
    async with Desk() as desk:
        process = desk.spawn()
        most = int(TIMER_SECONDS) * SECOND_NS
        timer = desk.ask(process, "events.timer", most)
        desk.ask(process, "events.wait", [timer], "any", most, []).abandon()
        for delay in (most + 1000, 2**64 - 1):
            with pytest.raises(Invalid, match="longer than any timer"):
                desk.ask(process, "events.timer", delay)
            with pytest.raises(Invalid, match="longer than any timer"):
                desk.ask(process, "events.wait", [timer], "any", delay, [])
        assert len(process.handles) == 1


@in_loop
async def test_clocks() -> None:
    async with Desk() as desk:
        process = desk.spawn()
        times = [desk.ask(process, "events.now") for _ in range(100)]
        assert times == sorted(times)
        assert abs(desk.ask(process, "events.wall-clock") - time.time_ns()) < 60 * SECOND_NS


# --- handles ---

@in_loop
async def test_a_closed_handle_is_gone_and_its_number_is_never_used_again() -> None:
    async with Desk() as desk:
        process = desk.spawn()
        timer = desk.ask(process, "events.timer", LATER_NS)
        desk.ask(process, "events.close", timer)
        for call in ("events.close", "channel.take-message", "inference.take-tokens"):
            with pytest.raises(NotFound, match=f"handle {timer} is not open"):
                desk.ask(process, call, timer)
        assert desk.ask(process, "events.timer", LATER_NS) != timer


Opener = Callable[[Desk, Process, int], int]
OPENERS: dict[str, Opener] = {
    "timer": lambda desk, p, f: desk.ask(p, "events.timer", LATER_NS),
    "wait-child": lambda desk, p, f: desk.ask(p, "process.wait-child", p.pid),
    "signals": lambda desk, p, f: desk.ask(p, "process.signals"),
    "receive": lambda desk, p, f: desk.ask(p, "channel.receive"),
    "subscribe": lambda desk, p, f: desk.ask(p, "channel.subscribe", "news"),
    "pull": lambda desk, p, f: desk.ask(p, "channel.pull", "jobs"),
    "forward": lambda desk, p, f: desk.ask(p, "inference.forward", a_pass(f, [1])),
    "decode": lambda desk, p, f: desk.ask(p, "inference.decode", a_run(f, [1])),
}


@pytest.mark.parametrize("opener", OPENERS)
@in_loop
async def test_handles_are_limited_and_what_is_refused_leaves_nothing(opener: str) -> None:
    async with Desk(limits=ProcessLimits(handles=2)) as desk:
        process = desk.spawn()
        file = desk.ask(process, "kv.create")
        first = desk.ask(process, "events.timer", LATER_NS)
        second = OPENERS[opener](desk, process, file)
        desk.ask(process, "events.close", second)
        await desk.settle()
        second = desk.ask(process, "events.timer", LATER_NS)
        with pytest.raises(LimitExceeded, match="2 handles") as refused:
            OPENERS[opener](desk, process, file)
        assert refused.value.limit == "handles"
        assert not desk.ask(process, "kv.stat", file).busy
        assert desk.kernel.exchange.statistics() == NO_CHANNELS
        assert not process.signals.opened or opener == "signals"
        desk.ask(process, "events.close", first)
        OPENERS[opener](desk, process, file)
        assert len(process.handles) == 2
        desk.ask(process, "events.close", second)
