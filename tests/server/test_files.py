"""The file service over a real connection, on a kernel without programs: their files are made here."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from cadenza.kernel.language import Language
from cadenza.kvfs.errors import CadenzaError
from cadenza.kvfs.file import File
from cadenza.sdk.client import Client, ClientError, Denied, Exists, Invalid, NotFound
from cadenza.server.command_files import at_home, parse_mode
from cadenza.server.daemon import Daemon
from cadenza.server.limits import PAGE_SIZE, READ_TOKENS
from tests.syscalls.desk import Desk
from tests.syscalls.test_model_calls import byte_language

from .serving import LOOPBACK, run

WRITE = frozenset({"read", "append", "create"})


@asynccontextmanager
async def filed(language: Language | None = None) -> AsyncIterator[tuple[Desk, Client]]:
    async with (Desk(language=language) as desk, Daemon(desk.kernel, LOOPBACK) as daemon,
                Client(daemon.address) as client):
        yield desk, client


def write(desk: Desk, user: str, path: str, tokens: int) -> File:
    file = desk.files.open(user, path, WRITE)
    file.extend(list(range(tokens)), range(tokens))
    desk.files.close(file)
    return file


def test_files_are_listed_told_copied_moved_linked_and_removed() -> None:
    async def test() -> None:
        async with filed() as (desk, client):
            write(desk, "local", "notes/a", 20)
            write(desk, "local", "b", 3)
            assert [(f.path, f.directory) for f in await client.files.list()] == [("b", False), ("notes", True)]
            (info,) = await client.files.list("notes")
            assert (info.path, info.tokens, info.pages, info.owner) == ("a", 20, 2, "local")
            copy = await client.files.copy("notes/a", "/shared/a")
            assert (copy.tokens, copy.others, copy.exact, copy.durable) == (20, {"read"}, True, False)
            await client.files.move("b", "notes/c")
            linked = await client.files.link("notes/c", "d")
            assert linked.paths == ("/home/local/notes/c", "/home/local/d")
            await client.files.remove("notes/c")
            assert (await client.files.get("/home/local/d")).paths == ("/home/local/d",)
            with pytest.raises(NotFound):
                await client.files.get("notes/c")
            with pytest.raises(Exists):
                await client.files.copy("d", "notes/a")
            usage = await client.files.usage()
            assert (usage.files, [t.used_pages for t in usage.tiers]) == (3, [3, 0])
            desk.files.recount()
    run(test())


def test_what_another_has_not_opened_to_others_is_absent() -> None:
    async def test() -> None:
        async with filed() as (desk, client):
            write(desk, "ada", "/home/ada/secret", 5)
            shared = write(desk, "ada", "/shared/open", 5)
            with pytest.raises(NotFound) as absent:
                await client.files.get("/home/ada/nothing")
            with pytest.raises(NotFound) as hidden:
                await client.files.get("/home/ada/secret")
            assert hidden.value.message == absent.value.message.replace("nothing", "secret")
            assert [f.path for f in await client.files.list("/shared")] == ["open"]
            for refused in (client.files.remove("/shared/open"), client.files.move("/shared/open", "mine"),
                            client.files.change_mode("/shared/open", others=frozenset())):
                with pytest.raises(Denied):
                    await refused
            desk.files.grant("ada", shared, "local", frozenset({"append"}))
            assert (await client.files.get("/shared/open")).grants == {"local": {"append"}}
    run(test())


def test_modes_and_grants_are_changed_and_taken_back() -> None:
    async def test() -> None:
        async with filed() as (desk, client):
            file = write(desk, "local", "a", 5)
            both = frozenset({"read", "append"})
            info = await client.files.change_mode("a", others=frozenset({"read"}), grants={"bob": both})
            assert (info.mine, info.others, info.grants) == (both, {"read"}, {"bob": both})
            info = await client.files.change_mode("a", mine=frozenset({"read"}), grants={"bob": frozenset()})
            assert (info.mine, info.others, info.grants) == ({"read"}, {"read"}, {})
            assert file.access.of("local", "bob") == {"read"}
    run(test())


def test_bad_requests_name_what_is_wrong() -> None:
    async def test() -> None:
        async with filed() as (desk, client):
            write(desk, "local", "a", 5)
            with pytest.raises(Invalid) as caught:
                await client.files.get("x" * 5000)
            assert caught.value.field == "path"
            with pytest.raises(ClientError) as unsupported:
                await client.files.sync("a")
            assert unsupported.value.errno == "unsupported"
            with pytest.raises(ClientError) as wordless:        # a model without a tokenizer has no text
                await anext(aiter(client.files.read("a")))
            assert wordless.value.errno == "unsupported"
            assert desk.files.find("local", "a").open_count == 0
    run(test())


def test_a_long_directory_comes_in_pages_and_a_file_is_listed_alone() -> None:
    async def test() -> None:
        async with filed() as (desk, client):
            names = [f"{number:04}" for number in range(2 * PAGE_SIZE + 3)]
            for name in reversed(names):
                write(desk, "local", f"d/{name}", 1)
            assert [file.path for file in await client.files.list("d")] == names
            (alone,) = await client.files.list("./d/0007")
            assert (alone.path, alone.tokens, alone.directory) == ("./d/0007", 1, False)
            with pytest.raises(NotFound):
                await client.files.list("d/none")
            with pytest.raises(Invalid):
                await client.files.list("d\n")
    run(test())


def test_grants_are_told_to_those_whom_they_concern_and_readers_cannot_sync() -> None:
    async def test() -> None:
        async with filed() as (desk, client):
            file = write(desk, "ada", "/shared/open", 5)
            for user in ("eve", "local"):
                desk.files.grant("ada", file, user, frozenset({"read"}))
            assert (await client.files.get("/shared/open")).grants == {"local": {"read"}}
            with pytest.raises(Denied):
                await client.files.sync("/shared/open")
            assert (await client.files.copy("/shared/open", "mine")).grants == {}
    run(test())


def test_text_is_cut_between_characters_and_what_is_not_known_yet_is_left_out() -> None:
    async def test() -> None:
        async with filed(byte_language()) as (desk, client):
            text = "a" * (READ_TOKENS - 1) + "猫é" * READ_TOKENS
            file = desk.files.open("local", "a", WRITE)
            file.extend([*text.encode(), -1, -1], range(len(text.encode()) + 2))
            desk.files.close(file)
            pieces = [piece async for piece in client.files.read("a")]
            assert "".join(pieces) == text
            assert len(pieces) > 2
    run(test())


def test_states_of_another_model_are_told_and_neither_read_nor_copied() -> None:
    async def test() -> None:
        async with filed() as (desk, client):
            write(desk, "local", "a", 0).foreign = "model 12ab, not 34cd"
            assert (await client.files.get("a")).foreign == "model 12ab, not 34cd"
            for refused in (client.files.copy("a", "b"), client.files.sync("a")):
                with pytest.raises(ClientError, match="holds states of model 12ab, not 34cd") as fault:
                    await refused
                assert fault.value.errno == "unsupported"
            await client.files.move("a", "b")
            await client.files.remove("b")
    run(test())


def test_paths_of_the_command_line() -> None:
    assert [at_home(path) for path in ("~", "~/a/b", "a", "/a", "~a")] == [".", "a/b", "a", "/a", "~a"]


def test_the_modes_of_chmod() -> None:
    assert parse_mode("o=r,bob=ra,u=,eve=") == {
        "o": {"read"}, "bob": {"read", "append"}, "u": frozenset(), "eve": frozenset()}
    for wrong in ("", "r", "o+r", "o=rw", "=r"):
        with pytest.raises(CadenzaError, match="WHO=RIGHTS"):
            parse_mode(wrong)
