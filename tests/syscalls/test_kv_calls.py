"""Interface `kv`."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

import pytest

from cadenza.kernel.device.null_device import CostModel
from cadenza.kernel.limits import PATH_BYTES, PATH_NAMES, ProcessLimits
from cadenza.kernel.process import Process
from cadenza.kvfs.errors import Busy, Denied, Exists, Invalid, LimitExceeded, NotFound

from .asking import CREATE, filled
from .desk import Desk, a_pass, a_run, in_loop

SLOW = CostModel(fixed_ms=3_600_000.0)        # a step that does not come back while a test runs


def busy(desk: Desk, process: Process, path: str = "") -> int:
    """A descriptor of a file that a run appends to (over a SLOW device)."""
    file: int = desk.ask(process, "kv.open", path, CREATE) if path else desk.ask(process, "kv.create")
    desk.ask(process, "inference.decode", a_run(file, [1, 2]))
    assert desk.ask(process, "kv.stat", file).busy
    return file


@in_loop
async def test_a_new_file_is_empty_and_nameless() -> None:
    async with Desk() as desk:
        process = desk.spawn()
        status = desk.ask(process, "kv.stat", desk.ask(process, "kv.create"))
        assert (status.tokens, status.pages, status.next_position, status.shared_pages) == (0, 0, 0, 0)
        assert (status.paths, status.busy, status.owner) == ([], False, "ada")
        assert (status.mine, status.others, status.grants) == ({"read", "append"}, set(), [])
        assert (status.hidden, status.exactness, status.durable) == (0, "exact", False)
        assert status.fingerprint == desk.kernel.facts.fingerprint
        assert 0 < status.created_ns == status.modified_ns


@in_loop
async def test_stat_tells_tokens_pages_positions_and_sharing() -> None:
    async with Desk() as desk:
        process = desk.spawn()
        file = await filled(desk, process, 17)
        handle = desk.ask(process, "inference.forward", a_pass(file, [1], positions=[99]))
        await desk.wait(process, handle)
        fork = desk.ask(process, "kv.fork", file)
        for descriptor in (file, fork):
            status = desk.ask(process, "kv.stat", descriptor)
            assert (status.tokens, status.pages, status.next_position, status.shared_pages) == (18, 2, 100, 2)


@in_loop
async def test_a_fork_goes_its_own_way() -> None:
    async with Desk() as desk:
        process = desk.spawn()
        file = await filled(desk, process, 20, "book")
        fork = desk.ask(process, "kv.fork", file)
        assert desk.ask(process, "kv.stat", fork).paths == []
        desk.ask(process, "kv.truncate", fork, 3)
        desk.ask(process, "kv.close", file)
        desk.ask(process, "kv.unlink", "book")
        handle = desk.ask(process, "inference.forward", a_pass(fork, [1] * 4))
        await desk.wait(process, handle)
        assert desk.ask(process, "kv.stat", fork).tokens == 7
        assert desk.files.statistics()["files"] == 1


@in_loop
async def test_truncate_keeps_the_first_tokens() -> None:
    async with Desk() as desk:
        process = desk.spawn()
        file = await filled(desk, process, 40)
        desk.ask(process, "kv.truncate", file, 40)
        desk.ask(process, "kv.truncate", file, 16)
        assert desk.ask(process, "kv.stat", file).pages == 1
        for tokens in (17, 2**32 - 1):
            with pytest.raises(Invalid, match="give 0 to 16"):
                desk.ask(process, "kv.truncate", file, tokens)
        desk.ask(process, "kv.truncate", file, 0)
        assert desk.files.statistics()["tokens"] == 0


@in_loop
async def test_a_named_file_outlives_its_descriptors_until_it_is_unlinked() -> None:
    async with Desk() as desk:
        process, other = desk.spawn(), desk.spawn()
        desk.ask(process, "kv.close", await filled(desk, process, 5, "notes/a"))
        process.kill()
        file = desk.ask(other, "kv.open", "/home/ada/notes/a", {"read"})
        assert desk.ask(other, "kv.stat", file).paths == ["/home/ada/notes/a"]
        desk.ask(other, "kv.unlink", "notes/a")
        status = desk.ask(other, "kv.stat", file)
        assert (status.tokens, status.paths) == (5, [])
        desk.ask(other, "kv.close", file)
        assert desk.files.statistics()["files"] == 0
        with pytest.raises(NotFound, match="no file notes/a"):
            desk.ask(other, "kv.unlink", "notes/a")


@in_loop
async def test_the_flags_of_open() -> None:
    async with Desk() as desk:
        process = desk.spawn()
        await filled(desk, process, 5, "book")
        with pytest.raises(NotFound, match="no file absent"):
            desk.ask(process, "kv.open", "absent", {"read", "append"})
        with pytest.raises(Exists, match="book exists"):
            desk.ask(process, "kv.open", "book", CREATE | {"exclusive"})
        again = desk.ask(process, "kv.open", "book", CREATE)
        assert desk.ask(process, "kv.stat", again).tokens == 5
        cleared = desk.ask(process, "kv.open", "book", CREATE | {"truncate"})
        assert desk.ask(process, "kv.stat", cleared).tokens == 0
        assert desk.ask(process, "kv.open", "new", CREATE | {"exclusive"})


@pytest.mark.parametrize("flags", [
    set(), {"create"}, {"truncate"}, {"read", "create"}, {"read", "truncate"}, {"read", "append", "exclusive"},
])
@in_loop
async def test_flags_that_make_no_sense_are_refused(flags: set[str]) -> None:
    async with Desk() as desk:
        process = desk.spawn()
        with pytest.raises(Invalid):
            desk.ask(process, "kv.open", "book", flags)
        assert desk.files.statistics()["files"] == 0


@pytest.mark.parametrize("path", [
    "", "a\0b", "a\nb", "..", "./", "/home", "/home/ada", "/shared", "p" * (PATH_BYTES - len("/home/ada/") + 1),
    "é" * (PATH_BYTES // 2), "d/" * (PATH_NAMES - 2) + "a", "./" * PATH_BYTES + "a",
])
@in_loop
async def test_paths_that_name_no_file_are_refused(path: str) -> None:
    async with Desk() as desk:
        process = desk.spawn()
        with pytest.raises(Invalid):
            desk.ask(process, "kv.open", path, CREATE)
        with pytest.raises(Invalid):
            desk.ask(process, "kv.unlink", path)


@in_loop
async def test_directories_are_no_files() -> None:
    async with Desk() as desk:
        process = desk.spawn()
        desk.ask(process, "kv.open", "p" * (PATH_BYTES - len("/home/ada/")), CREATE)
        desk.ask(process, "kv.open", "d/" * (PATH_NAMES - 3) + "a", CREATE)
        desk.ask(process, "kv.open", "notes/a", CREATE)
        with pytest.raises(Invalid, match="directory"):
            desk.ask(process, "kv.open", "notes", {"read"})
        with pytest.raises(Invalid, match="directory"):
            desk.ask(process, "kv.unlink", "notes")
        with pytest.raises(Invalid, match="not a directory"):
            desk.ask(process, "kv.open", "notes/a/b", CREATE)


@in_loop
async def test_a_descriptor_allows_what_it_was_opened_for() -> None:
    async with Desk() as desk:
        process = desk.spawn()
        await filled(desk, process, 5, "book")
        reader = desk.ask(process, "kv.open", "book", {"read"})
        writer = desk.ask(process, "kv.open", "book", {"append"})
        refused: list[tuple[str, Callable[[], object]]] = [
            ("append", lambda: desk.ask(process, "kv.truncate", reader, 0)),
            ("append", lambda: desk.ask(process, "inference.forward", a_pass(reader, [1]))),
            ("append", lambda: desk.ask(process, "inference.decode", a_run(reader, [1]))),
            ("read", lambda: desk.ask(process, "kv.stat", writer)),
            ("read", lambda: desk.ask(process, "kv.fork", writer)),
            ("read", lambda: desk.ask(process, "inference.forward",
                                      a_pass(desk.ask(process, "kv.create"), [1], reads=[writer]))),
        ]
        for right, call in refused:
            with pytest.raises(Denied, match=f"without '{right}'"):
                call()
        copy = desk.ask(process, "kv.fork", reader)
        desk.ask(process, "kv.truncate", copy, 0)
        assert desk.ask(process, "kv.stat", reader).tokens == 5


@in_loop
async def test_descriptors_that_are_not_open_are_refused_everywhere() -> None:
    async with Desk() as desk:
        process, other = desk.spawn(), desk.spawn()
        mine = desk.ask(process, "kv.create")
        for _ in range(3):
            desk.ask(other, "kv.create")
        calls: list[Callable[[], object]] = [
            lambda: desk.ask(process, "kv.stat", 2),
            lambda: desk.ask(process, "kv.fork", 2),
            lambda: desk.ask(process, "kv.truncate", 2, 0),
            lambda: desk.ask(process, "kv.close", 2),
            lambda: desk.ask(process, "inference.forward", a_pass(2, [1])),
            lambda: desk.ask(process, "inference.forward", a_pass(mine, [1], reads=[2])),
            lambda: desk.ask(process, "inference.decode", a_run(2, [1])),
        ]
        for call in calls:
            with pytest.raises(NotFound, match="descriptor 2 is not open"):
                call()
        desk.ask(process, "kv.close", mine)
        with pytest.raises(NotFound, match=f"descriptor {mine} is not open"):
            desk.ask(process, "kv.close", mine)
        assert desk.ask(process, "kv.create") != mine


@pytest.mark.parametrize("opener", ["create", "open", "fork"])
@in_loop
async def test_descriptors_are_limited_and_what_is_refused_leaves_nothing(opener: str) -> None:
    async with Desk(limits=ProcessLimits(descriptors=2)) as desk:
        process = desk.spawn()
        calls: dict[str, Callable[[], int]] = {
            "create": lambda: desk.ask(process, "kv.create"),
            "open": lambda: desk.ask(process, "kv.open", "book", CREATE),
            "fork": lambda: desk.ask(process, "kv.fork", first),
        }
        first = desk.ask(process, "kv.create")
        second = calls[opener]()
        before = desk.files.statistics()
        with pytest.raises(LimitExceeded, match="2 files open") as refused:
            calls[opener]()
        assert refused.value.limit == "descriptors"
        assert desk.files.statistics() == before
        desk.ask(process, "kv.close", second)
        assert calls[opener]() > second


@in_loop
async def test_pages_are_counted_once_a_file_however_often_it_is_open() -> None:
    async with Desk() as desk:
        process = desk.spawn()
        await filled(desk, process, 17, "book")
        desk.ask(process, "kv.open", "book", {"read"})
        assert process.usage()["kv_pages"] == 2


# --- what is being appended to ---

@in_loop
async def test_a_busy_file_is_neither_closed_nor_forked_nor_cut() -> None:
    async with Desk(cost=SLOW) as desk:
        process = desk.spawn()
        file = busy(desk, process)
        calls: list[Callable[[], object]] = [
            lambda: desk.ask(process, "kv.close", file),
            lambda: desk.ask(process, "kv.fork", file),
            lambda: desk.ask(process, "kv.truncate", file, 0),
            lambda: desk.ask(process, "inference.forward", a_pass(file, [1])),
            lambda: desk.ask(process, "inference.decode", a_run(file, [1])),
        ]
        for call in calls:
            with pytest.raises(Busy):
                call()
        desk.ask(process, "events.close", 1)
        assert not desk.ask(process, "kv.stat", file).busy
        desk.ask(process, "kv.fork", file)
        desk.ask(process, "kv.close", file)


@in_loop
async def test_a_busy_file_is_not_cut_by_opening_it() -> None:
    async with Desk(cost=SLOW) as desk:
        process = desk.spawn()
        busy(desk, process, "book")
        with pytest.raises(Busy, match="book is being appended to"):
            desk.ask(process, "kv.open", "book", {"append", "truncate"})
        reader = desk.ask(process, "kv.open", "book", {"read"})
        assert desk.ask(process, "kv.stat", reader).busy
        desk.ask(process, "kv.close", reader)


@in_loop
async def test_a_busy_file_may_lose_its_name() -> None:
    async with Desk(cost=CostModel(fixed_ms=2.0)) as desk:
        process = desk.spawn()
        file = busy(desk, process, "book")
        desk.ask(process, "kv.unlink", "book")
        await desk.wait(process, 1)
        while desk.ask(process, "kv.stat", file).busy:
            await desk.wait(process, 1)
            desk.ask(process, "inference.take-tokens", 1)
        assert desk.ask(process, "kv.stat", file).tokens == 5


@in_loop
async def test_a_busy_file_outlives_everybody_elses_descriptors() -> None:
    async with Desk(cost=CostModel(fixed_ms=2.0)) as desk:
        process, other, neighbour = desk.spawn(), desk.spawn(), desk.spawn("bob")
        file = desk.ask(process, "kv.open", "book", CREATE)
        desk.ask(other, "kv.open", "book", {"read"})
        run = desk.ask(process, "inference.decode", a_run(file, [1] * 20, max_tokens=6, deliver_every=9))
        theirs = desk.ask(neighbour, "kv.create")
        beside = desk.ask(neighbour, "inference.decode", a_run(theirs, [1] * 20, max_tokens=6, deliver_every=9))
        with suppress(Busy):                    # as good: then it stays open
            desk.ask(process, "kv.close", file)
        desk.ask(other, "kv.unlink", "book")
        other.kill()
        assert await desk.wait(process, run, timeout_ns=20_000_000_000) == [run]
        assert len(desk.ask(process, "inference.take-tokens", run).tokens) == 6
        assert await desk.wait(neighbour, beside, timeout_ns=20_000_000_000) == [beside]
