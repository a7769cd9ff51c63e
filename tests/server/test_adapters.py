"""The adapter service over a real connection, on a kernel with a small model and without programs."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from cadenza.sdk.client import Client, ClientError, Exists, Invalid, NotFound
from cadenza.sdk.proto.cadenza.v1 import adapters_pb2 as pb
from cadenza.server.auth import add_key
from cadenza.server.daemon import Daemon
from cadenza.server.options import ListenOptions
from tests.kernel.model.tiny_adapters import save_tiny_adapter
from tests.syscalls.asking import forward
from tests.syscalls.desk import a_pass
from tests.syscalls.test_adapters import Tiny

from .serving import run
from .test_command_line import cadenza


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    return Tiny(tmp_path_factory.mktemp("tiny"))


def test_adapters_are_added_listed_and_dropped_by_their_owner(tiny: Tiny, tmp_path: Path) -> None:
    keys = {user: add_key(tmp_path / "keys", user) for user in ("ada", "bob")}

    async def test() -> None:
        listen = ListenOptions("127.0.0.1:0", keys=tmp_path / "keys")
        async with (tiny.desk() as desk, Daemon(desk.kernel, listen) as daemon,
                    Client(daemon.address, key=keys["ada"]) as ada, Client(daemon.address, key=keys["bob"]) as bob):
            await desk.kernel.adapters.open(tmp_path / "adapters")
            sent: list[tuple[int, int]] = []
            added = await ada.adapters.add("blue", tiny.blue.directory, progress=lambda *done: sent.append(done))
            assert (added.name, added.rank, len(added.targets)) == ("blue", 4, 7)
            assert sent == [(added.size_bytes, added.size_bytes)]
            assert await ada.adapters.list() == [added]
            assert await bob.adapters.list() == []
            with pytest.raises(Exists):
                await ada.adapters.add("blue", tiny.red.directory)
            process = desk.spawn("ada")
            file = desk.ask(process, "kv.create")
            await forward(desk, process, a_pass(file, [1, 2, 3], adapter="blue"))
            with pytest.raises(NotFound) as absent:
                await bob.adapters.drop("blue")
            with pytest.raises(NotFound) as never:
                await bob.adapters.drop("green")
            assert str(absent.value).replace("blue", "green") == str(never.value)
            with pytest.raises(ClientError, match="in use") as busy:
                await ada.adapters.drop("blue")
            assert busy.value.errno == "busy"
            desk.ask(process, "kv.close", file)
            await ada.adapters.drop("blue")
            assert await ada.adapters.list() == []

    run(test())


def test_the_command_line(tiny: Tiny, tmp_path: Path) -> None:
    async def test() -> None:
        async with tiny.desk() as desk, Daemon(desk.kernel, ListenOptions("127.0.0.1:0")) as daemon:
            await desk.kernel.adapters.open(tmp_path / "adapters")

            def answer(*words: object) -> str:
                found = cadenza("adapters", *words, address=daemon.address)
                return found.stdout or found.stderr

            added = await asyncio.to_thread(answer, "add", "blue", tiny.blue.directory)
            assert added.startswith("blue rank 4")
            (line,) = (await asyncio.to_thread(answer, "list")).splitlines()
            assert line.split("\t")[:3] == ["blue", "4", "down gate k o q up v"]
            assert "dropped blue" in await asyncio.to_thread(answer, "drop", "blue")
            assert "no adapter 'blue'" in await asyncio.to_thread(answer, "drop", "blue")

    run(test())


def test_what_is_not_an_adapter_leaves_nothing_behind(tiny: Tiny, tmp_path: Path) -> None:
    save_tiny_adapter(tiny.model, tmp_path / "dora", use_dora=True)

    async def test() -> None:
        async with (tiny.desk() as desk, Daemon(desk.kernel, ListenOptions("127.0.0.1:0")) as daemon,
                    Client(daemon.address) as client):
            await desk.kernel.adapters.open(tmp_path / "adapters")
            with pytest.raises(Invalid, match="cannot read"):
                await client.adapters.add("x", tmp_path)
            (tmp_path / "adapter_config.json").write_text("{}")
            (tmp_path / "adapter_model.bin").write_bytes(b"pickled")
            with pytest.raises(Invalid, match="pickled weights are not read"):
                await client.adapters.add("x", tmp_path)
            with pytest.raises(ClientError, match="use_dora") as unsupported:
                await client.adapters.add("x", tmp_path / "dora")
            assert unsupported.value.errno == "unsupported"
            short = pb.AddAdapterHeader(name="x", settings=b"{}", digest="0" * 64, size_bytes=9)
            with pytest.raises(Exception, match="ended after 4 of the 9"):
                await client.adapters._stub.Add(iter([pb.AddAdapterRequest(header=short),
                                                      pb.AddAdapterRequest(chunk=b"1234")]))
            assert await asyncio.to_thread(lambda: list((tmp_path / "adapters").iterdir())) == []
            assert await client.adapters.list() == []

    run(test())
