"""`Trace` over a real connection, and `cadenza trace` off a terminal and on one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from cadenza.kernel.limits import TRACE_RECORDS, TRACE_TEXT_BYTES, TRACE_TRACK_BYTES
from cadenza.sdk.client import Client, NotFound
from cadenza.server.auth import add_key

from .serving import LOOPBACK, PROGRAM, run, served

MARKS = [["begin", "1", "search"], ["instant", "interrupt", "1 = 42"], ["end", "1", "42"]]


def test_records_of_the_living_and_the_dead() -> None:
    async def test() -> None:
        async with served() as server:
            image = await server.client.upload(PROGRAM, name="agent")
            process = await server.client.spawn(image, {"marks": MARKS, "hang": True})
            kernels = server.kernel.table[process.pid].trace
            work = kernels.begin_work("run")
            work.admitted(kernels.clock(), 7, 2)
            alive = await server.client.trace(process.pid)
            assert (alive.process.pid, alive.process.exit, alive.lost) == (process.pid, None, 0)
            assert [(r.sequence, r.kind, r.track, r.text) for r in alive.records[:3]] == [
                (at, *mark) for at, mark in enumerate(MARKS, 1)]
            whole, fed = alive.records[3:]
            assert (whole.kind, whole.until, fed.until, fed.count, fed.reused) == ("run", None, None, 7, 2)
            assert 0 <= alive.records[0].seconds <= fed.seconds <= alive.seconds < 60
            work.fed()
            work.took(3)
            work.ended("length")
            await process.kill()
            dead = await server.client.trace(process.pid)
            assert (dead.process.state, dead.seconds) == ("ended", (await server.client.trace(process.pid)).seconds)
            assert dead.records[3].text == "length"
            assert dead.records[5].count == 3
            assert dead.records[4].until is not None
            assert fed.seconds <= dead.records[4].until <= dead.seconds
            await process.forget()
            with pytest.raises(NotFound):
                await server.client.trace(process.pid)

    run(test())


def test_a_trace_of_another_is_not_found(tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    ann, bob = add_key(keys, "ann"), add_key(keys, "bob")

    async def test() -> None:
        async with served(replace(LOOPBACK, keys=keys), key=ann) as server:
            await server.client.upload(PROGRAM, name="agent")
            mine = await server.client.spawn("agent", {"hang": True})
            async with Client(server.daemon.address, key=bob) as other:
                said = []
                for pid in (mine.pid, 999):
                    with pytest.raises(NotFound) as caught:
                        await other.trace(pid)
                    said.append(caught.value.message.replace(str(pid), "N"))
                assert said[0] == said[1]
            assert (await server.client.trace(mine.pid)).process.pid == mine.pid

    run(test())


def test_a_full_ring_fits_one_answer_and_says_what_is_lost() -> None:
    async def test() -> None:
        async with served() as server:
            await server.client.upload(PROGRAM, name="agent")
            process = await server.client.spawn("agent", {"hang": True})
            kernels = server.kernel.table[process.pid].trace
            for number in range(TRACE_RECORDS + 5):
                kernels.mark("begin", f"{number}" * TRACE_TRACK_BYTES, "é" * TRACE_TEXT_BYTES)
            seen = await server.client.trace(process.pid)
            assert (len(seen.records), seen.lost, seen.records[0].sequence) == (TRACE_RECORDS, 5, 6)

    run(test())
