"""Interface `kv`: names, rights at use, quotas."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from cadenza.kernel.device.null_device import CostModel
from cadenza.kernel.limits import GRANTS_PER_FILE, TOPIC_BYTES, ProcessLimits
from cadenza.kernel.process import Process
from cadenza.kvfs.errors import Denied, Exists, Invalid, LimitExceeded, NotFound

from .asking import CREATE, filled, forward
from .desk import Desk, a_pass, a_run, in_loop

BOTH = {"read", "append"}


def listed(desk: Desk, process: Process, path: str) -> list[tuple[str, bool, int]]:
    return [(entry.name, entry.directory, entry.tokens) for entry in desk.ask(process, "kv.entries", path)]


@in_loop
async def test_a_nameless_file_gets_names_and_loses_them() -> None:
    async with Desk() as desk:
        process = desk.spawn()
        file = await filled(desk, process, 5)
        desk.ask(process, "kv.link", file, "notes/a")
        desk.ask(process, "kv.link", file, "b")
        with pytest.raises(Exists, match="b is taken"):
            desk.ask(process, "kv.link", file, "b")
        assert desk.ask(process, "kv.stat", file).paths == ["/home/ada/notes/a", "/home/ada/b"]
        desk.ask(process, "kv.close", file)
        assert listed(desk, process, ".") == [("b", False, 5), ("notes", True, 0)]
        desk.ask(process, "kv.rename", "notes/a", "/shared/book")
        desk.ask(process, "kv.unlink", "b")
        assert listed(desk, process, "/") == [("home", True, 0), ("shared", True, 0)]
        assert listed(desk, process, ".") == []
        assert listed(desk, process, "/shared") == [("book", False, 5)]
        with pytest.raises(Invalid, match="a file, not a directory"):
            desk.ask(process, "kv.entries", "/shared/book")
        desk.ask(process, "kv.unlink", "/shared/book")
        assert desk.files.statistics()["files"] == 0


@in_loop
async def test_rename_is_atomic_and_leaves_open_what_it_replaces() -> None:
    async with Desk() as desk:
        process = desk.spawn()
        old, new = await filled(desk, process, 5, "current"), await filled(desk, process, 7, "draft")
        desk.ask(process, "kv.rename", "draft", "current")
        assert listed(desk, process, ".") == [("current", False, 7)]
        assert desk.ask(process, "kv.stat", old).paths == []
        assert desk.ask(process, "kv.stat", new).paths == ["/home/ada/current"]
        with pytest.raises(NotFound, match="no file draft"):
            desk.ask(process, "kv.rename", "draft", "current")
        assert desk.ask(process, "kv.fork", old)


@in_loop
async def test_a_run_goes_on_while_its_file_is_renamed() -> None:
    async with Desk(cost=CostModel(fixed_ms=1.0)) as desk:
        process = desk.spawn()
        file = desk.ask(process, "kv.open", "a", CREATE)
        run = desk.ask(process, "inference.decode", a_run(file, [1, 2], max_tokens=6, deliver_every=6))
        desk.ask(process, "kv.rename", "a", "d/b")
        assert await desk.wait(process, run, timeout_ns=20_000_000_000) == [run]
        assert len(desk.ask(process, "inference.take-tokens", run).tokens) == 6
        assert desk.ask(process, "kv.stat", desk.ask(process, "kv.open", "d/b", {"read"})).tokens == 7


# --- rights ---

@in_loop
async def test_a_descriptor_loses_what_is_taken_and_gets_back_what_is_given() -> None:
    async with Desk() as desk:
        ada, bob = desk.spawn("ada"), desk.spawn("bob")
        mine = await filled(desk, ada, 5, "book")
        desk.ask(ada, "kv.change-grant", mine, "bob", BOTH)
        theirs = desk.ask(bob, "kv.open", "/home/ada/book", BOTH)
        await desk.wait(bob, desk.ask(bob, "inference.forward", a_pass(theirs, [1])))
        uses: dict[str, list[Callable[[], object]]] = {
            "append": [lambda: desk.ask(bob, "kv.truncate", theirs, 5),
                       lambda: desk.ask(bob, "inference.forward", a_pass(theirs, [1])),
                       lambda: desk.ask(bob, "kv.hide", theirs, {"first": 0, "count": 1}),
                       lambda: desk.ask(bob, "kv.lock", theirs, True)],
            "read": [lambda: desk.ask(bob, "kv.stat", theirs),
                     lambda: desk.ask(bob, "kv.fork", theirs),
                     lambda: desk.ask(bob, "kv.tokens", theirs, {"first": 0, "count": 1}),
                     lambda: desk.ask(bob, "inference.forward",
                                      a_pass(desk.ask(bob, "kv.create"), [1], reads=[theirs]))],
        }
        for left, right in (({"read"}, "append"), (set(), "read")):
            desk.ask(ada, "kv.change-grant", mine, "bob", left)
            for use in uses[right]:
                with pytest.raises(Denied, match=f"bob may not {right} any more"):
                    use()
        desk.ask(ada, "kv.change-mode", mine, BOTH, BOTH)
        desk.ask(bob, "kv.truncate", theirs, 0)
        desk.ask(bob, "kv.close", theirs)


@in_loop
async def test_rights_are_told_to_those_whom_they_concern() -> None:
    async with Desk() as desk:
        ada, bob = desk.spawn("ada"), desk.spawn("bob")
        mine = desk.ask(ada, "kv.open", "/shared/book", CREATE)
        for user in ("bob", "eve"):
            desk.ask(ada, "kv.change-grant", mine, user, {"append"})
        status = desk.ask(ada, "kv.stat", mine)
        assert (status.mine, status.others) == (BOTH, {"read"})
        assert [(grant.user, grant.rights) for grant in status.grants] == [("bob", {"append"}), ("eve", {"append"})]
        theirs = desk.ask(bob, "kv.stat", desk.ask(bob, "kv.open", "/shared/book", BOTH))
        assert [grant.user for grant in theirs.grants] == ["bob"]
        assert theirs.owner == "ada"


@in_loop
async def test_only_the_owner_changes_names_and_rights() -> None:
    async with Desk() as desk:
        ada, bob = desk.spawn("ada"), desk.spawn("bob")
        mine = desk.ask(ada, "kv.open", "/shared/book", CREATE)
        desk.ask(ada, "kv.change-mode", mine, BOTH, BOTH)
        theirs = desk.ask(bob, "kv.open", "/shared/book", BOTH)
        attempts: list[Callable[[], object]] = [
            lambda: desk.ask(bob, "kv.link", theirs, "book"),
            lambda: desk.ask(bob, "kv.rename", "/shared/book", "/shared/mine"),
            lambda: desk.ask(bob, "kv.unlink", "/shared/book"),
            lambda: desk.ask(bob, "kv.change-mode", theirs, BOTH, set()),
            lambda: desk.ask(bob, "kv.change-grant", theirs, "eve", BOTH),
        ]
        for attempt in attempts:
            with pytest.raises(Denied, match="only ada, its owner"):
                attempt()
        desk.ask(bob, "kv.link", desk.ask(bob, "kv.fork", theirs), "book")


@in_loop
async def test_grants_that_make_no_sense_are_refused() -> None:
    async with Desk() as desk:
        process = desk.spawn()
        file = desk.ask(process, "kv.create")
        for user in ("", "ada", "x" * (TOPIC_BYTES + 1)):
            with pytest.raises(Invalid):
                desk.ask(process, "kv.change-grant", file, user, BOTH)
        for number in range(GRANTS_PER_FILE):
            desk.ask(process, "kv.change-grant", file, f"user-{number}", {"read"})
        with pytest.raises(LimitExceeded, match=f"grants for {GRANTS_PER_FILE} users") as refused:
            desk.ask(process, "kv.change-grant", file, "one more", {"read"})
        assert refused.value.limit == "grants_per_file"


# --- quotas ---

@in_loop
async def test_pages_of_a_user_are_limited_over_all_processes() -> None:
    async with Desk(limits=ProcessLimits(kv_pages=4)) as desk:
        desk.files.pool.quota_pages = 5
        first, second, neighbour = desk.spawn(), desk.spawn(), desk.spawn("bob")
        await filled(desk, first, 64, "book")
        file = desk.ask(second, "kv.create")
        refused = desk.ask(second, "inference.forward", a_pass(file, [2] * 17))
        await desk.wait(second, refused)
        with pytest.raises(LimitExceeded, match="user ada has 4 KV pages and needs 2 more; the limit of a user is 5"):
            desk.ask(second, "inference.take-pass", refused)
        assert desk.ask(second, "kv.stat", file).tokens == 0
        await forward(desk, second, a_pass(file, [2] * 16))
        await filled(desk, neighbour, 64)
        run = desk.ask(second, "inference.decode", a_run(desk.ask(second, "kv.create"), [1], max_tokens=9))
        await desk.wait(second, run)
        with pytest.raises(LimitExceeded, match="user ada has 5 KV pages and needs 1 more"):
            desk.ask(second, "inference.take-tokens", run)
