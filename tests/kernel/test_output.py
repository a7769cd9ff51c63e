"""The log of a process: a ring of numbered events."""

from __future__ import annotations

import asyncio

from cadenza.kernel.limits import OUTPUT_RING_EVENTS
from cadenza.kernel.output import OutputLog


def texts(log: OutputLog, after: int = 0) -> tuple[list[str], int]:
    events, lost = log.read(after)
    return [event.text for event in events], lost


def test_events_are_numbered_from_one_and_read_from_anywhere() -> None:
    log = OutputLog()
    assert texts(log) == ([], 0)
    for kind, text in (("output", "a"), ("error", "b"), ("message", "c")):
        log.write(kind, text)
    assert [(e.sequence, e.kind, e.text) for e in log.read(0)[0]] == [
        (1, "output", "a"), (2, "error", "b"), (3, "message", "c")]
    assert texts(log, 2) == (["c"], 0)
    assert texts(log, 3) == texts(log, 99) == ([], 0)


def test_the_oldest_go_when_there_are_too_many_bytes_and_readers_are_told_how_many() -> None:
    log = OutputLog(capacity_bytes=10)
    for text in ("aaaa", "bbbb", "cc"):
        log.write("output", text)
    assert texts(log) == (["aaaa", "bbbb", "cc"], 0)
    log.write("output", "d")
    assert texts(log) == (["bbbb", "cc", "d"], 1)
    assert texts(log, 1) == (["bbbb", "cc", "d"], 0)
    log.write("output", "é" * 4)
    assert texts(log) == (["d", "é" * 4], 3)
    assert texts(log, 2) == (["d", "é" * 4], 1)
    assert log.total_bytes == 4 + 4 + 2 + 1 + 8


def test_one_event_larger_than_the_ring_is_kept_alone() -> None:
    log = OutputLog(capacity_bytes=10)
    log.write("output", "a")
    log.write("output", "b" * 50)
    assert texts(log) == (["b" * 50], 1)
    log.write("output", "c")
    assert texts(log) == (["c"], 2)


def test_many_small_events_are_bounded_too() -> None:
    log = OutputLog()
    for _ in range(OUTPUT_RING_EVENTS + 5):
        log.write("output", "")
    events, lost = log.read(0)
    assert (len(events), lost) == (OUTPUT_RING_EVENTS, 5)
    assert events[0].sequence == 6


def test_followers_are_told_of_what_comes_and_of_the_end() -> None:
    async def test() -> None:
        log = OutputLog()
        followers = [asyncio.create_task(log.changed(0)) for _ in range(3)]
        ahead = asyncio.create_task(log.changed(1))
        await asyncio.sleep(0)
        followers[2].cancel()
        log.write("output", "a")
        await asyncio.gather(*followers[:2])
        await asyncio.sleep(0)
        assert not ahead.done()
        log.close()
        log.close()
        await ahead
        await log.changed(0)
        await log.changed(99)
    asyncio.run(asyncio.wait_for(test(), 20))
