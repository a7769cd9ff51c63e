"""The client when the connection fails: what is repeated, and what is done once all the same."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, cast

import pytest

from cadenza.sdk.client import Client, Invalid, Output, Unavailable
from cadenza.sdk.client.errors import Closed
from cadenza.sdk.client.sources import name_of
from cadenza.server.daemon import Daemon
from cadenza.server.options import ListenOptions

from .fake_kernel import FakeKernel
from .serving import PROGRAM, run, served

if TYPE_CHECKING:
    from cadenza.kernel.kernel import Kernel


@asynccontextmanager
async def cutting(target: str, answers_lost: int) -> AsyncIterator[str]:
    """A proxy before `target` that hangs up, `answers_lost` times, once an upload's or spawn's answer is due: when
    more has come from the client than a connection's greeting, and the server answers it."""
    host, _, port = target.partition(":")
    left = answers_lost

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal left
        server_reader, server_writer = await asyncio.open_connection(host, int(port))
        asked = False

        async def forth() -> None:
            nonlocal asked
            while data := await reader.read(65536):
                asked = asked or b"cadenza.v1" in data or b"once" in data
                server_writer.write(data)

        async def back() -> None:
            nonlocal left
            while data := await server_reader.read(65536):
                if asked and left and b"application/grpc" in data:
                    left -= 1
                    return
                writer.write(data)

        ways = [asyncio.ensure_future(way()) for way in (forth, back)]
        await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        for way in ways:
            way.cancel()
        writer.close()
        server_writer.close()

    proxy = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield f"127.0.0.1:{proxy.sockets[0].getsockname()[1]}"
        assert left == 0, "no answer was lost"
    finally:
        proxy.close()


def test_a_spawn_whose_answer_was_lost_is_done_once() -> None:
    async def test() -> None:
        async with served() as server:
            image = await server.client.upload(PROGRAM)
            async with cutting(server.daemon.address, 2) as target, Client(target) as client:
                process = await client.spawn(image, {"hang": True})
                assert process.pid == 1
                assert list(server.kernel.table) == [1]

    run(test())


def test_an_upload_whose_answer_was_lost_is_done_once() -> None:
    async def test() -> None:
        async with served() as server, cutting(server.daemon.address, 1) as target, Client(target) as client:
            image = await client.upload(PROGRAM)
            assert image.size_bytes == len(PROGRAM)
            assert server.kernel.images.added == 1

    run(test())


def test_a_daemon_that_comes_up_late_is_reached() -> None:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{held.getsockname()[1]}"

    async def test() -> None:
        async with Client(address) as client:
            upload = asyncio.ensure_future(client.upload(PROGRAM))
            await asyncio.sleep(0.05)
            async with Daemon(cast("Kernel", FakeKernel()), ListenOptions(address)):
                assert (await upload).size_bytes == len(PROGRAM)

    run(test())


def test_repeats_come_to_an_end() -> None:
    async def test() -> None:
        async with Client("127.0.0.1:1") as client:
            with pytest.raises(Unavailable) as caught:
                await client.spawn("agent")
            assert caught.value.errno == "unavailable"

    run(test())


def test_an_attachment_ends_with_the_connection() -> None:
    async def test() -> None:
        async with served() as server:
            process = await server.client.spawn(await server.client.upload(PROGRAM), {"hang": True})
            attachment = process.attach()
            await attachment.send("hello")
            await server.client.close()
            with pytest.raises(Closed):
                await attachment.send("anyone?")
            echo = await anext(attachment)
            assert isinstance(echo, Output)
            assert echo.text == "echo hello"
            with pytest.raises(Closed):
                await anext(attachment)
            await attachment.close()

    run(test())


def test_arguments_that_json_cannot_hold() -> None:
    async def test() -> None:
        async with served() as server:
            for arguments in ({"x": float("nan")}, {"x": object()}):
                with pytest.raises(Invalid) as caught:
                    await server.client.spawn("agent", arguments)
                assert caught.value.field == "arguments"

    run(test())


@pytest.mark.parametrize(
    ("path", "name"),
    [("my_agent.py", "my_agent"), ("a b.py", "a-b"), (".x.py", "x"), ("deadbeef.py", ""), ("x" * 200, "x" * 128)],
)
def test_names_from_files(path: str, name: str) -> None:
    assert name_of(Path("/somewhere") / path) == name
