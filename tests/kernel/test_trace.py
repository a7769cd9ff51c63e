"""What is recorded of a process: its ring, what becomes of many tokens, and exact times under the virtual clock."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest

from cadenza.kernel.limits import TRACE_GAP_SECONDS, TRACE_RECORDS, TRACE_TEXT_BYTES, TRACE_TRACK_BYTES
from cadenza.kernel.process import Process
from cadenza.kernel.runs import Run
from cadenza.kernel.sampler import Sampler
from cadenza.kernel.trace import Trace, TraceRecord, cut
from cadenza.kernel.virtual_clock import simulate
from cadenza.kvfs.file import File
from tests.kernel.test_engine import NO_RANGES, NONE
from tests.kernel.test_memory import STEP_SECONDS, House


class Clock:
    """Stands still until it is set."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def decode(house: House, process: Process, file: File, tokens: int, most: int, every: int = 1) -> Run:
    return house.inference.decode(
        process, file, [], np.arange(tokens, dtype=np.int32), NONE, sampler=Sampler(), mask=None, max_tokens=most,
        stop_tokens=frozenset(), stop_sequences=(), deliver_every=every)


async def taken(run: Run) -> None:
    """Takes tokens as they come, to the last."""
    while not run.over:
        while not run.ready:
            await asyncio.sleep(STEP_SECONDS / 8)
        run.take()


def of(process: Process, kind: str) -> list[TraceRecord]:
    return [record for record in process.trace.records() if record.kind == kind]


# --- the ring ---

def test_the_ring_drops_the_oldest_and_says_how_many() -> None:
    trace = Trace(Clock())
    for number in range(TRACE_RECORDS):
        trace.mark("instant", "t", str(number))
    assert (len(trace.records()), trace.lost) == (TRACE_RECORDS, 0)
    for number in range(3):
        trace.mark("instant", "t", f"more {number}")
    records = trace.records()
    assert (len(records), trace.lost) == (TRACE_RECORDS, 3)
    assert [records[0].text, records[-1].text] == ["3", "more 2"]
    assert [records[0].sequence, records[-1].sequence] == [4, TRACE_RECORDS + 3]


@pytest.mark.parametrize("letter", ["a", "é", "猫", "🦦"])
def test_a_mark_is_cut_to_its_bytes_and_not_one_earlier(letter: str) -> None:
    size = len(letter.encode())
    trace = Trace(Clock())
    trace.mark("begin", letter * (TRACE_TRACK_BYTES // size), letter * (TRACE_TEXT_BYTES // size))
    trace.mark("begin", letter * TRACE_TRACK_BYTES + "x", letter * 1_000_000)
    whole, short = trace.records()
    assert (whole.track, whole.text) == (letter * (TRACE_TRACK_BYTES // size), letter * (TRACE_TEXT_BYTES // size))
    for text, most in ((short.track, TRACE_TRACK_BYTES), (short.text, TRACE_TEXT_BYTES)):
        assert text == letter * ((most - 3) // size) + "…"
        assert len(text.encode()) <= most
    assert cut("", 8) == ""


def test_tokens_taken_one_after_the_other_are_one_record() -> None:
    clock = Clock()
    trace = Trace(clock)
    work = trace.begin_work("run")
    work.admitted(0.0, 7, 2)
    clock.now = 1.0
    work.fed()
    work.took(1)
    for _ in range(5):
        clock.now += TRACE_GAP_SECONDS * 0.9
        work.took(1)
    late = clock.now = clock.now + TRACE_GAP_SECONDS * 1.1
    work.took(1)
    clock.now += 4 * TRACE_GAP_SECONDS * 0.9
    work.took(4)
    _, fed, first, second = trace.records()
    assert (fed.kind, fed.time, fed.until, fed.count, fed.reused) == ("fed", 0.0, 1.0, 7, 2)
    assert (first.time, first.until, first.count) == (1.0, pytest.approx(1.45), 6)
    assert (second.time, second.until, second.count) == (late, clock.now, 5)


def test_tokens_go_into_a_new_record_when_theirs_is_lost() -> None:
    clock = Clock()
    trace = Trace(clock)
    work = trace.begin_work("run")
    work.fed()
    work.took(1)
    for _ in range(TRACE_RECORDS):
        trace.mark("instant", "", "")
    work.took(1)
    work.ended("length")
    assert (trace.lost, trace.records()[-1].count) == (3, 1)


def test_a_wait_taken_up_again_is_one() -> None:
    clock = Clock()
    trace = Trace(clock)
    for text, begins in (("search", 0.0), ("search", 0.35), ("search", 1.0), ("mail", 1.3), ("mail", 1.65)):
        clock.now = begins
        wait = trace.begin_wait(text)
        clock.now = begins + 0.3
        wait.until = clock.now
    trace.mark("instant", "", "something else")
    trace.begin_wait("mail")
    waits = [record for record in trace.records() if record.kind == "wait"]
    assert [wait.text for wait in waits] == ["search", "search", "mail", "mail"]
    assert [wait.time for wait in waits] == [0.0, 1.0, 1.3, 1.95]
    assert [wait.until for wait in waits[:3]] == pytest.approx([0.65, 1.3, 1.95])
    assert waits[3].until is None


# --- the kernel's own records, to the hair ---

def test_a_run_alone() -> None:
    async def test() -> None:
        house = House("ours", step_tokens=16)
        process = house.spawn()
        await asyncio.sleep(1.0)
        run = decode(house, process, house.file(process), 20, 3)
        await taken(run)
        step = STEP_SECONDS                               # two steps for 20 tokens at 16 a step; then one a token
        whole, fed, sampled = process.trace.records()
        assert (whole.kind, whole.track, whole.text, whole.time) == ("run", "run 1", "length", 1.0)
        assert whole.until == pytest.approx(1.0 + 4 * step)
        assert (fed.time, fed.count, fed.reused) == (1.0, 20, 0)
        assert fed.until == pytest.approx(1.0 + 2 * step)
        assert (sampled.count, sampled.track) == (3, "run 1")
        assert sampled.time == pytest.approx(1.0 + 2 * step, abs=step / 4)
        assert sampled.until == pytest.approx(1.0 + 4 * step, abs=step / 4)
        assert process.trace.started == 0.0
        process.kill()
        assert process.trace.ended == asyncio.get_running_loop().time()
    simulate(test())


def test_tokens_of_one_take_are_spread_over_the_time_they_came_in() -> None:
    async def test() -> None:
        house = House("ours")
        process = house.spawn()
        run = decode(house, process, house.file(process), 4, 9, every=9)
        while not run.ready:
            await asyncio.sleep(STEP_SECONDS / 8)
        await asyncio.sleep(5.0)
        run.take()
        (sampled,) = of(process, "sampled")
        assert sampled.count == 9
        assert (sampled.time, sampled.until) == (pytest.approx(STEP_SECONDS), pytest.approx(9 * STEP_SECONDS))
        process.kill()
    simulate(test())


def test_a_pass_that_fails_is_cancelled_or_samples() -> None:
    async def test() -> None:
        house = House("ours", pages=4, host_pages=0)
        process = house.spawn()

        def forward(tokens: int) -> None:
            work = house.inference.forward(
                process, house.file(process), [], np.arange(tokens, dtype=np.int32), NONE, visible=NO_RANGES, mask=None,
                samples=[(tokens - 1, Sampler())] * 2, probes=[])
            works.append(work)
        works: list[object] = []
        forward(3)
        await asyncio.sleep(1.0)
        forward(40)
        await asyncio.sleep(10.0)
        forward(5)
        process.kill()
        forward_texts = [(r.track, r.text, r.until is None) for r in of(process, "pass")]
        assert forward_texts == [("pass 1", "", False), ("pass 2", "no-pages", False), ("pass 3", "cancelled", False)]
        assert [(r.track, r.count) for r in of(process, "sampled")] == [("pass 1", 2)]
        assert [r.track for r in of(process, "fed")] == ["pass 1"]
    simulate(test())


def test_what_is_put_into_a_run_is_neither_sampled_nor_lost() -> None:
    async def test() -> None:
        house = House("ours")
        process = house.spawn()
        run = decode(house, process, house.file(process), 4, 12)
        put_in = reported = 0
        while not run.over:
            while not run.ready:
                await asyncio.sleep(STEP_SECONDS / 8)
            progress = run.take()
            reported += sum(each.count for each in progress.interjected)
            if run.taken >= 4 and not put_in:
                put_in = 9
                house.inference.interject(run, np.arange(put_in, dtype=np.int32))
        assert reported == put_in
        (interjected,) = of(process, "interjected")
        assert (interjected.count, interjected.track) == (9, "run 1")
        assert interjected.until == pytest.approx(interjected.time + STEP_SECONDS, abs=STEP_SECONDS / 4)
        before, after = of(process, "sampled")
        assert before.count + after.count == 12
        assert before.until == pytest.approx(interjected.time, abs=STEP_SECONDS / 4)
        assert after.time == pytest.approx(interjected.until, abs=STEP_SECONDS / 4)
        process.kill()
    simulate(test())


def test_who_is_preempted_is_fed_again() -> None:
    async def test() -> None:
        house = House("ours", pages=8, host_pages=0)
        urgent, other = house.spawn(), house.spawn()
        runs = [decode(house, process, house.file(process), 8, 17) for process in (urgent, other)]
        await asyncio.gather(*map(taken, runs))
        assert house.engine.preemptions > 0
        records = urgent.trace.records() + other.trace.records()
        preempted = [record for record in records if record.kind == "preempted"]
        assert len(preempted) == house.engine.preemptions
        fed = [record for record in records if record.kind == "fed"]
        assert len(fed) == 2 + len(preempted)
        again = fed[-1]
        assert again.count > 8
        assert again.until is not None
        assert sum(record.count for record in records if record.kind == "sampled") == 34
        urgent.kill()
        other.kill()
    simulate(test())
