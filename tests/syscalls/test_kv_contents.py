"""Interface `kv`: cutting, joining, moving, hiding, reading."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from cadenza.kernel.device.null_device import CostModel
from cadenza.kernel.limits import FILE_PARTS, FILE_TOKENS, RANGE_TOKENS, ProcessLimits
from cadenza.kernel.process import Process
from cadenza.kvfs.errors import Busy, Denied, Invalid, LimitExceeded, NotFound, Unsupported

from .asking import filled, forward
from .desk import Desk, a_pass, a_run, in_loop

SLOW = CostModel(fixed_ms=3_600_000.0)        # a step that does not come back while a test runs


def span(first: int, count: int) -> dict[str, int]:
    return {"first": first, "count": count}


def held(desk: Desk, process: Process, file: int) -> list[tuple[int, int]]:
    """(token, position) of all that a file holds."""
    count = desk.ask(process, "kv.stat", file).tokens
    tokens = desk.ask(process, "kv.tokens", file, span(0, count))
    positions = desk.ask(process, "kv.positions", file, span(0, count))
    return list(zip(tokens.tolist(), positions.tolist(), strict=True))


async def a_file(desk: Desk, process: Process, *tokens: int) -> int:
    file: int = desk.ask(process, "kv.create")
    await forward(desk, process, a_pass(file, list(tokens)))
    return file


@in_loop
async def test_extract_takes_ranges_in_any_order_and_copies_nothing() -> None:
    async with Desk() as desk:
        process = desk.spawn()
        file = await a_file(desk, process, *range(10, 30))
        piece = desk.ask(process, "kv.extract", file, [span(18, 2), span(0, 3), span(1, 1)])
        assert held(desk, process, piece) == [(28, 18), (29, 19), (10, 0), (11, 1), (12, 2), (11, 1)]
        status = desk.ask(process, "kv.stat", piece)
        assert (status.exactness, status.paths, status.next_position) == ("approximate", [], 20)
        assert desk.files.pool.used == 2
        beginning = desk.ask(process, "kv.extract", file, [span(0, 7)])
        assert desk.ask(process, "kv.stat", beginning).exactness == "exact"
        await forward(desk, process, a_pass(beginning, [99]))
        assert held(desk, process, file)[7] == (17, 7)
        assert desk.ask(process, "kv.stat", desk.ask(process, "kv.extract", file, [])).tokens == 0


@in_loop
async def test_concat_joins_files_of_several_owners() -> None:
    async with Desk() as desk:
        ada, bob = desk.spawn("ada"), desk.spawn("bob")
        mine, theirs = await a_file(desk, ada, 1, 2, 3), await filled(desk, bob, 2, "/shared/b")
        opened = desk.ask(ada, "kv.open", "/shared/b", {"read"})
        whole = desk.ask(ada, "kv.concat", [mine, opened, mine])
        assert held(desk, ada, whole) == [(1, 0), (2, 1), (3, 2), (1, 0), (1, 1), (1, 0), (2, 1), (3, 2)]
        assert desk.ask(ada, "kv.stat", whole).owner == "ada"
        with pytest.raises(Invalid, match="name at least one file"):
            desk.ask(ada, "kv.concat", [])
        desk.ask(bob, "kv.truncate", theirs, 0)
        await forward(desk, ada, a_pass(whole, [7]))
        assert held(desk, ada, whole)[3:] == [(1, 0), (1, 1), (1, 0), (2, 1), (3, 2), (7, 3)]


@in_loop
async def test_relocate_moves_positions_and_back() -> None:
    async with Desk() as desk:
        process = desk.spawn()
        file = await a_file(desk, process, 5, 6)
        desk.ask(process, "kv.relocate", file, 100)
        assert held(desk, process, file) == [(5, 100), (6, 101)]
        assert desk.ask(process, "kv.stat", file).exactness == "approximate"
        await forward(desk, process, a_pass(file, [7]))
        desk.ask(process, "kv.relocate", file, -100)
        assert held(desk, process, file) == [(5, 0), (6, 1), (7, 2)]
        for by in (-1, 2**31 - 1):
            with pytest.raises(Invalid, match=f"cannot move by {by}"):
                desk.ask(process, "kv.relocate", file, by)


@in_loop
async def test_hidden_tokens_are_counted_and_come_back() -> None:
    async with Desk() as desk:
        process = desk.spawn()
        file = await a_file(desk, process, *range(10))
        desk.ask(process, "kv.hide", file, span(2, 5))
        status = desk.ask(process, "kv.stat", file)
        assert (status.tokens, status.hidden, status.exactness) == (10, 5, "approximate")
        assert [token for token, _ in held(desk, process, file)] == list(range(10))
        desk.ask(process, "kv.show", file, span(0, 10))
        status = desk.ask(process, "kv.stat", file)
        assert (status.hidden, status.exactness) == (0, "exact")


@in_loop
async def test_changes_are_told() -> None:
    async with Desk() as desk:
        process = desk.spawn()
        file = await a_file(desk, process, 1, 2, 3)
        before = desk.ask(process, "kv.stat", file)
        desk.ask(process, "kv.hide", file, span(0, 1))
        after = desk.ask(process, "kv.stat", file)
        assert before.created_ns == after.created_ns <= before.modified_ns < after.modified_ns


@pytest.mark.parametrize("call", ["extract", "hide", "show", "tokens", "positions"])
@in_loop
async def test_ranges_past_the_end_are_refused(call: str) -> None:
    async with Desk() as desk:
        process = desk.spawn()
        file = await a_file(desk, process, 1, 2, 3)
        for wrong in (span(0, 4), span(4, 0), span(2**32 - 1, 2**32 - 1)):
            with pytest.raises((Invalid, LimitExceeded)):
                desk.ask(process, f"kv.{call}", file, [wrong] if call == "extract" else wrong)
        assert len(held(desk, process, file)) == 3
        assert desk.files.statistics()["files"] == 1


@in_loop
async def test_what_is_being_appended_to_is_not_cut_joined_or_moved() -> None:
    async with Desk(cost=SLOW) as desk:
        process = desk.spawn()
        file = desk.ask(process, "kv.create")
        desk.ask(process, "inference.decode", a_run(file, [1, 2]))
        calls: list[Callable[[], object]] = [
            lambda: desk.ask(process, "kv.extract", file, [span(0, 0)]),
            lambda: desk.ask(process, "kv.concat", [file]),
            lambda: desk.ask(process, "kv.relocate", file, 1),
            lambda: desk.ask(process, "kv.hide", file, span(0, 0)),
            lambda: desk.ask(process, "kv.show", file, span(0, 0)),
        ]
        for call in calls:
            with pytest.raises(Busy):
                call()
        assert desk.files.statistics()["files"] == 1


@in_loop
async def test_tokens_that_are_not_known_yet_are_not_told() -> None:
    async with Desk(cost=CostModel(fixed_ms=30.0)) as desk:
        process = desk.spawn()
        file = desk.ask(process, "kv.create")
        run = desk.ask(process, "inference.decode", a_run(file, [4, 5], max_tokens=3, deliver_every=3))
        await desk.settle()
        while (count := desk.ask(process, "kv.stat", file).tokens) < 3:
            await desk.wait(process, run, timeout_ns=1_000_000)
        assert desk.ask(process, "kv.tokens", file, span(0, 2)).tolist() == [4, 5]
        with pytest.raises(Busy, match="not known yet"):
            desk.ask(process, "kv.tokens", file, span(0, count))
        await desk.wait(process, run)
        assert len(desk.ask(process, "kv.tokens", file, span(0, 4))) == 4


@in_loop
async def test_rights_are_asked_of_each_descriptor() -> None:
    async with Desk() as desk:
        process = desk.spawn()
        await filled(desk, process, 5, "book")
        reader = desk.ask(process, "kv.open", "book", {"read"})
        writer = desk.ask(process, "kv.open", "book", {"append"})
        refused: list[Callable[[], object]] = [
            lambda: desk.ask(process, "kv.relocate", reader, 1),
            lambda: desk.ask(process, "kv.hide", reader, span(0, 1)),
            lambda: desk.ask(process, "kv.show", reader, span(0, 1)),
            lambda: desk.ask(process, "kv.sync", reader),
            lambda: desk.ask(process, "kv.lock", reader, True),
            lambda: desk.ask(process, "kv.extract", writer, []),
            lambda: desk.ask(process, "kv.concat", [reader, writer]),
            lambda: desk.ask(process, "kv.tokens", writer, span(0, 1)),
            lambda: desk.ask(process, "kv.positions", writer, span(0, 1)),
            lambda: desk.ask(process, "kv.lock", writer, False),
        ]
        for call in refused:
            with pytest.raises(Denied, match="was opened without"):
                call()
        assert len(process.handles) == 0


@in_loop
async def test_what_makes_files_needs_room_for_descriptors() -> None:
    async with Desk(limits=ProcessLimits(descriptors=1)) as desk:
        process = desk.spawn()
        file = await a_file(desk, process, 1)
        calls: list[Callable[[], object]] = [
            lambda: desk.ask(process, "kv.extract", file, [span(0, 1)]),
            lambda: desk.ask(process, "kv.concat", [file]),
        ]
        for call in calls:
            with pytest.raises(LimitExceeded, match="1 files open"):
                call()
        assert desk.files.statistics()["files"] == 1


@in_loop
async def test_what_is_put_together_is_limited() -> None:
    async with Desk() as desk:
        process = desk.spawn()
        file = await a_file(desk, process, *range(8))
        with pytest.raises(LimitExceeded) as refused:
            desk.ask(process, "kv.extract", file, [span(0, 1)] * (FILE_PARTS + 1))
        assert refused.value.limit == "file_parts"
        most = desk.ask(process, "kv.extract", file, [span(i % 7, 1) for i in range(FILE_PARTS)])
        with pytest.raises(LimitExceeded):
            desk.ask(process, "kv.concat", [most, file])
        file = await a_file(desk, process, *[1] * (FILE_TOKENS // FILE_PARTS))
        desk.ask(process, "kv.close", desk.ask(process, "kv.extract", file, [span(0, FILE_TOKENS // FILE_PARTS)]))
        longest = desk.ask(process, "kv.concat", [file] * (FILE_PARTS // 2))
        assert desk.ask(process, "kv.stat", longest).tokens == FILE_TOKENS // 2
        half = len(desk.files.living)
        with pytest.raises(LimitExceeded) as refused:
            desk.ask(process, "kv.extract", longest, [span(0, FILE_TOKENS // 2)] * 3)
        assert refused.value.limit == "file_tokens"
        assert len(desk.files.living) == half


@in_loop
async def test_tokens_are_asked_in_parts() -> None:
    async with Desk(context_tokens=2 * RANGE_TOKENS, pages=20_000) as desk:
        process = desk.spawn(limits=ProcessLimits(kv_pages=20_000))
        file = desk.ask(process, "kv.create")
        for _ in range(2):
            await forward(desk, process, a_pass(file, [1] * (RANGE_TOKENS // 2 + 1)))
        for call in ("kv.tokens", "kv.positions"):
            assert len(desk.ask(process, call, file, span(2, RANGE_TOKENS))) == RANGE_TOKENS
            with pytest.raises(LimitExceeded) as refused:
                desk.ask(process, call, file, span(1, RANGE_TOKENS + 1))
            assert refused.value.limit == "range_tokens"


@in_loop
async def test_where_nothing_is_kept_on_disk_sync_says_so() -> None:
    async with Desk() as desk:
        process = desk.spawn()
        file = await filled(desk, process, 5, "book")
        with pytest.raises(Unsupported, match="disk"):
            desk.ask(process, "kv.sync", file)
        with pytest.raises(NotFound):
            desk.ask(process, "kv.take-sync", desk.ask(process, "events.timer", 0))


@in_loop
async def test_a_run_tells_what_it_computed_and_what_it_found() -> None:
    async with Desk() as desk:
        process = desk.spawn()
        progress: list[Any] = []
        for _ in range(2):
            file = desk.ask(process, "kv.create")
            run = desk.ask(process, "inference.decode", a_run(file, list(range(40)), max_tokens=1))
            await desk.wait(process, run)
            progress.append(desk.ask(process, "inference.take-tokens", run))
        assert [(p.computed_tokens, p.reused_tokens) for p in progress] == [(40, 0), (8, 32)]
