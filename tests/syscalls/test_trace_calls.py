"""What system calls leave in the trace of their process."""

from __future__ import annotations

import asyncio

from cadenza.kernel.limits import TRACE_RECORDS, TRACE_TEXT_BYTES
from cadenza.kernel.process import Process

from .asking import decode, forward, sample
from .desk import Desk, a_pass, a_run, in_loop

LATER_NS = 3_600_000_000_000


def told(process: Process) -> list[tuple[str, str, str, int]]:
    return [(record.kind, record.track, record.text, record.count) for record in process.trace.records()]


@in_loop
async def test_marks_are_kept_in_order_and_never_refused() -> None:
    async with Desk() as desk:
        process, other = desk.spawn(), desk.spawn()
        for kind in ("begin", "instant", "end"):
            assert desk.ask(process, "process.mark", kind, "7", f"a {kind}") is None
        assert [(kind, track, text) for kind, track, text, _ in told(process)] == [
            ("begin", "7", "a begin"), ("instant", "7", "a instant"), ("end", "7", "a end")]
        for _ in range(TRACE_RECORDS):
            desk.ask(process, "process.mark", "instant", "", "x" * (TRACE_TEXT_BYTES + 1))
        assert (len(told(process)), process.trace.lost, told(other)) == (TRACE_RECORDS, 3, [])
        assert process.exit is None


@in_loop
async def test_passes_and_runs_and_what_they_sampled() -> None:
    async with Desk() as desk:
        process = desk.spawn()
        file = desk.ask(process, "kv.create")
        await forward(desk, process, a_pass(file, [1, 2, 3], samples=[sample(2)]))
        await decode(desk, process, a_run(file, [4, 5], max_tokens=6))
        kinds = told(process)
        assert kinds[:4] == [("pass", "pass 1", "", 0), ("fed", "pass 1", "", 3), ("sampled", "pass 1", "", 1),
                             ("run", "run 2", "length", 0)]
        assert kinds[4] == ("fed", "run 2", "", 2)
        assert sum(count for kind, track, _, count in kinds if (kind, track) == ("sampled", "run 2")) == 6
        assert all(record.until is not None and record.until >= record.time for record in process.trace.records())


@in_loop
async def test_a_run_that_is_stopped_or_closed_says_so() -> None:
    async with Desk() as desk:
        process = desk.spawn()
        for call in ("inference.stop", "events.close"):
            run = desk.ask(process, "inference.decode", a_run(desk.ask(process, "kv.create"), [1], max_tokens=1000))
            desk.ask(process, call, run)
        assert [(kind, text) for kind, _, text, _ in told(process)] == [("run", "stopped"), ("run", "stopped")]


@in_loop
async def test_waits_say_what_for_and_end_with_an_answer_or_the_process() -> None:
    async with Desk() as desk:
        process = desk.spawn()
        inbox = desk.ask(process, "channel.receive")
        wait = desk.ask(process, "events.wait", [inbox], "any", None,
                        [{"handle": inbox, "tool": "search", "expected_ns": None}])
        wait.subscribe(lambda: None)
        (record,) = process.trace.records()
        assert (record.kind, record.text, record.until) == ("wait", "search", None)
        await asyncio.sleep(0.01)
        process.deliver("found")
        wait.answer()
        assert record.until is not None
        assert record.until - record.time >= 0.009
        timer = desk.ask(process, "events.timer", LATER_NS)
        again = desk.ask(process, "events.wait", [timer], "any", None, [])
        again.subscribe(lambda: None)
        again.abandon()
        assert [record.text for record in process.trace.records()] == ["search", "timer"]
        assert process.trace.records()[1].until is not None


@in_loop
async def test_who_waits_for_the_device_as_well_is_not_idle() -> None:
    async with Desk() as desk:
        process = desk.spawn()
        file, inbox = desk.ask(process, "kv.create"), desk.ask(process, "channel.receive")
        run = desk.ask(process, "inference.decode", a_run(file, [1], max_tokens=3))
        assert await desk.wait(process, inbox, run, until="any") == [run]
        assert {kind for kind, *_ in told(process)} == {"run", "fed"}
        desk.ask(process, "inference.take-tokens", run)
        wait = desk.ask(process, "events.wait", [inbox], "any", None, [])
        wait.subscribe(lambda: None)
        wait.abandon()
        assert told(process)[-1] == ("wait", "", "message", 0)
