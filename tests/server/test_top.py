"""`Top` over a real connection, the rates between two looks, and how they are drawn."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from cadenza.sdk.client import Activity, Client, Facts, Load, PageCount, Tier, Top
from cadenza.server.auth import add_key
from cadenza.server.dashboard import COLUMNS, drawn, plain
from cadenza.server.frame import Frame
from cadenza.server.limits import TOP_PROCESSES
from cadenza.server.options import ListenOptions

from .serving import PROGRAM, Served, run, served


async def hang(server: Served, count: int, client: Client | None = None) -> list[int]:
    client = client or server.client
    image = await client.upload(PROGRAM, name="agent", reuse=True)
    return [(await client.spawn(image, {"hang": True})).pid for _ in range(count)]


def test_top_tells_of_the_machine_and_of_living_processes() -> None:
    async def test() -> None:
        async with served() as server:
            first, second = await hang(server, 2)
            await (await server.client.process(first)).kill()
            top = await server.client.top()
            assert (top.alive, [process.pid for process in top.processes]) == (1, [second])
            (process,) = top.processes
            assert (process.image_name, process.state, process.waiting_for) == ("agent", "waiting", "search")
            assert (process.seconds, process.pages) == (1.5, PageCount(3, 2, 0, 0, 1))
            assert (top.load.steps, top.load.rows, top.load.swapped_in_pages, top.load.queued) == (4, 20, 6, 2)
            assert top.load.tiers == (Tier("device", 64, 16, 1024), Tier("host", 32, 0, 1024))

    run(test())


def test_of_many_processes_those_are_told_that_ran_last() -> None:
    async def test() -> None:
        async with served() as server:
            pids = await hang(server, TOP_PROCESSES + 3)
            for pid, process in server.kernel.table.items():
                process.since = -float(pid)
            assert [process.pid for process in (await server.client.top(2)).processes] == pids[:2]
            top = await server.client.top()
            assert (top.alive, [process.pid for process in top.processes]) == (len(pids), pids[:TOP_PROCESSES])

    run(test())


def test_a_user_sees_nothing_of_anothers_processes(tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    ann, bob = add_key(keys, "ann"), add_key(keys, "bob")

    async def test() -> None:
        async with served(ListenOptions("127.0.0.1:0", keys), key=ann) as server:
            mine = await hang(server, 1)
            async with Client(server.daemon.address, key=bob) as other:
                await hang(server, 2, other)
                assert (await other.top()).alive == 2
            top = await server.client.top()
            assert [process.pid for process in top.processes] == mine
            assert (top.alive, top.load.processes) == (1, 3)

    run(test())


def load(n: float) -> Load:
    return Load(2.0 * n, 1.5 * n, int(4 * n), int(80 * n), int(40 * n), None, 0, 0, 0, 3, 2, 1, 9, 2,
                (Tier("device", 64, 16, 1 << 20),))


def activity(pid: int, tokens: int, state: str = "decoding", **more: Any) -> Activity:
    return replace(Activity(pid, "d" * 64, "agent", state, "", 0.0, 0, tokens, PageCount(1, 2, 3, 4, 5)), **more)


FACTS = Facts("1.0", datetime.now(UTC), "ann", "tiny", "f", "cpu", 64, 16, 1024, 512)


def test_rates_are_over_the_time_between_two_looks() -> None:
    before = Top(load(1), (activity(1, 10), activity(2, 10), activity(3, 50)), 9)
    now = Top(load(2), (activity(1, 20), activity(2, 60), activity(3, 40), activity(4, 7, "waiting")), 9)
    frame = Frame(now, before)
    assert (frame.seconds, frame.busy, frame.steps, frame.samples, frame.inputs) == (2.0, 0.75, 2.0, 20.0, 40.0)
    assert (frame.step_tokens, frame.step_rows) == (20.0, None)
    assert [(process.pid, rate) for process, rate in frame.processes()] == [(2, 25.0), (1, 5.0), (3, 0.0), (4, None)]


def test_without_a_look_before_or_after_a_restart_there_are_no_rates() -> None:
    now, restarted = Top(load(2), (activity(1, 20),), 1), Top(load(1), (activity(1, 0),), 1)
    for frame in (Frame(now), Frame(restarted, now), Frame(now, now)):
        assert (frame.seconds, frame.busy, frame.step_tokens) == (None, None, None)
        assert frame.processes()[0][1] is None
        assert frame.value()["tokens_per_second"] is None


def test_lines_for_those_who_have_no_terminal() -> None:
    odd = activity(2, 60, "waiting", image_name="a\x1b[2Jb", waiting_for="search\tthe web", seconds=200.0)
    text = plain(Frame(Top(load(2), (activity(1, 20), odd), 2), Top(load(1), (activity(1, 10),), 1)), FACTS)
    lines = text.splitlines()
    assert lines[0] == "cadenza 1.0: tiny on cpu; 9 processes, 2 ready; 2 are yours (ann)"
    assert lines[1] == "busy: 75%, 2.0 steps/s of - rows and 20.0 tokens"
    assert lines[2] == "device: 16 of 64 pages, 16.0 MiB"
    assert lines[4] == "\t".join(COLUMNS)
    assert lines[5].split("\t") == ["1", "agent", "decoding", "-", "0 s", "0", "5.0", "20", "1", "2", "3", "4", "5"]
    assert lines[6].split("\t")[:5] == ["2", "a [2Jb", "waiting", "search the web", "3 min"]


@pytest.mark.parametrize(("width", "columns"), [
    (140, COLUMNS),
    (100, [*COLUMNS[:11], "SHARED"]),
    (80, [*COLUMNS[:5], "TOK/S", "TOKENS", "DEVICE", "HOST"]),
])
def test_a_terminal_gets_as_much_as_it_has_room_for(width: int, columns: Sequence[str]) -> None:
    processes = tuple(activity(pid, 1000 - pid, image_name="research-assistant", waiting_for="search for it",
                               seconds=99.0) for pid in range(1001, 1060))
    frame = Frame(Top(load(2), processes, 80))
    console = Console(width=width, height=20, color_system=None, force_terminal=True)
    with console.capture() as captured:
        console.print(drawn(frame, FACTS, width, 20))
    lines = captured.get().rstrip("\n").splitlines()
    assert len(lines) == 20
    assert max(map(len, lines)) <= width
    assert next(line for line in lines if "PID" in line).replace("WAITS FOR", "WAITS-FOR").split() == [
        column.replace(" ", "-") for column in columns]
    shown = [line for line in lines if "decoding" in line]
    assert all("research-as" in line and "search for" in line for line in shown)
    assert f"and {80 - len(shown)} more" in lines[-1]
