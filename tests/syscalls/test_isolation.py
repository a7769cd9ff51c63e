"""Users never meet: what is another's answers exactly like what is not there."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cadenza.kernel.images import ImageStore
from cadenza.kernel.process import Process
from cadenza.kvfs.errors import CadenzaError, Denied, NotFound

from .desk import Desk, a_pass, in_loop

Attempt = Callable[[], object]


def fault_of(attempt: Attempt) -> tuple[type[CadenzaError], str]:
    with pytest.raises(CadenzaError) as fault:
        attempt()
    return type(fault.value), fault.value.message


@pytest.mark.parametrize("call", ["process.wait-child", "process.kill"])
@in_loop
async def test_anothers_process_is_absent(call: str) -> None:
    async with Desk() as desk:
        ada, bob = desk.spawn("ada"), desk.spawn("bob")
        more = ["kill"] if call == "process.kill" else []
        theirs = fault_of(lambda: desk.ask(ada, call, bob.pid, *more))
        absent = fault_of(lambda: desk.ask(ada, call, 99, *more))
        assert theirs == (absent[0], absent[1].replace("99", str(bob.pid)))
        assert theirs[0] is NotFound
        bob.kill()
        assert fault_of(lambda: desk.ask(ada, call, bob.pid, *more)) == theirs


@in_loop
async def test_anothers_file_is_absent() -> None:
    async with Desk() as desk:
        ada, bob = desk.spawn("ada"), desk.spawn("bob")
        desk.ask(bob, "kv.open", "/home/bob/diary/today", {"append", "create"})
        attempts: list[Callable[[str], Attempt]] = [
            lambda path: lambda: desk.ask(ada, "kv.open", path, {"read"}),
            lambda path: lambda: desk.ask(ada, "kv.open", path, {"read", "append"}),
            lambda path: lambda: desk.ask(ada, "kv.open", path, {"append", "create"}),
            lambda path: lambda: desk.ask(ada, "kv.open", path, {"append", "create", "exclusive"}),
            lambda path: lambda: desk.ask(ada, "kv.unlink", path),
        ]
        for attempt in attempts:
            absent = fault_of(attempt("/home/carol/diary/today"))
            assert absent[0] is NotFound
            for path in ("/home/bob/diary/today", "/home/bob/diary/never", "/home/bob/diary", "/home/bob"):
                assert fault_of(attempt(path)) == (NotFound, absent[1].replace("/home/carol/diary/today", path))
        own = fault_of(lambda: desk.ask(ada, "kv.open", "/home/ada/diary", {"read"}))
        assert own == fault_of(lambda: desk.ask(ada, "kv.open", "/home/ada/diary", {"read", "append"}))
        assert own == (NotFound, fault_of(attempts[0]("/home/bob/x"))[1].replace("/home/bob/x", "/home/ada/diary"))


@in_loop
async def test_the_same_path_under_two_homes_is_two_files() -> None:
    async with Desk() as desk:
        ada, bob = desk.spawn("ada"), desk.spawn("bob")
        mine = desk.ask(ada, "kv.open", "book", {"read", "append", "create", "exclusive"})
        theirs = desk.ask(bob, "kv.open", "book", {"read", "append", "create", "exclusive"})
        await desk.wait(ada, desk.ask(ada, "inference.forward", a_pass(mine, [1, 2, 3])))
        assert desk.ask(ada, "kv.stat", mine).tokens == 3
        assert desk.ask(bob, "kv.stat", theirs).tokens == 0


@in_loop
async def test_a_shared_file_is_read_by_all_and_changed_by_its_owner() -> None:
    async with Desk() as desk:
        ada, bob = desk.spawn("ada"), desk.spawn("bob")
        mine = desk.ask(ada, "kv.open", "/shared/book", {"append", "create"})
        await desk.wait(ada, desk.ask(ada, "inference.forward", a_pass(mine, [1, 2, 3])))
        theirs = desk.ask(bob, "kv.open", "/shared/book", {"read"})
        copy = desk.ask(bob, "kv.fork", theirs)
        await desk.wait(bob, desk.ask(bob, "inference.forward", a_pass(copy, [4], reads=[theirs])))
        assert desk.ask(bob, "kv.stat", copy).tokens == 4
        assert desk.ask(bob, "kv.stat", theirs).tokens == 3
        for attempt in (lambda: desk.ask(bob, "kv.open", "/shared/book", {"read", "append"}),
                        lambda: desk.ask(bob, "kv.open", "/shared/book", {"append", "truncate"}),
                        lambda: desk.ask(bob, "kv.unlink", "/shared/book")):
            assert fault_of(attempt)[0] is Denied


def messages(desk: Desk, process: Process, source: int) -> list[str]:
    taken = []
    while (message := desk.ask(process, "channel.take-message", source)) is not None:
        taken.append(message.text)
    return taken


@in_loop
async def test_topics_and_queues_of_the_same_name_are_different() -> None:
    async with Desk() as desk:
        ada, bob = desk.spawn("ada"), desk.spawn("bob")
        news, jobs = desk.ask(bob, "channel.subscribe", "x"), desk.ask(bob, "channel.pull", "x")
        assert desk.ask(ada, "channel.publish", "x", "secret") == 0
        desk.ask(ada, "channel.push", "x", "secret")
        assert await desk.wait(bob, news, jobs, until="any", timeout_ns=0) == []
        assert messages(desk, bob, news) == messages(desk, bob, jobs) == []
        assert messages(desk, ada, desk.ask(ada, "channel.pull", "x")) == ["secret"]


@in_loop
async def test_numbers_mean_nothing_elsewhere() -> None:
    async with Desk() as desk:
        ada, bob = desk.spawn("ada"), desk.spawn("bob")
        file, inbox = desk.ask(bob, "kv.create"), desk.ask(bob, "channel.receive")
        bob.deliver("for bob")
        assert fault_of(lambda: desk.ask(ada, "kv.stat", file))[0] is NotFound
        assert fault_of(lambda: desk.ask(ada, "channel.take-message", inbox))[0] is NotFound
        assert fault_of(lambda: desk.ask(ada, "events.close", inbox))[0] is NotFound


class LoadsAnything:
    async def load(self, data: bytes) -> bytes:
        return data


def test_anothers_image_is_absent(tmp_path: Path) -> None:
    @in_loop
    async def test() -> None:
        runtime: Any = LoadsAnything()
        store = ImageStore(tmp_path, runtime, runtime)
        image = await store.add("bob", b"\0asm of bob", name="diary")
        async with Desk() as desk:
            desk.kernel.images = store
            await store.add("ada", b"\0asm of ada", name="program")
            ada = desk.kernel.spawn("ada", "program", "{}")
            for name in ("diary", image.digest, image.digest[:8]):
                theirs = fault_of(lambda name=name: desk.ask(ada, "process.spawn", name, "{}", False))  # type: ignore[misc]
                absent = fault_of(lambda: desk.ask(ada, "process.spawn", "z" * 8, "{}", False))
                assert theirs == (NotFound, absent[1].replace("z" * 8, name))
    test()
