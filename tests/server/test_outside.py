"""The process that talks to other machines: what crosses the pipe, what happens when it dies, that it ends."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from cadenza.kernel.http_request import Header, HttpRequest, HttpResponse
from cadenza.kernel.tools import ToolResult
from cadenza.kvfs.errors import CadenzaError, Closed, Denied, Internal, Invalid, LimitExceeded, NotFound
from cadenza.server.allowed import Allowed
from cadenza.server.outside import Outside
from cadenza.server.outside_wire import frame, of_answer, of_error, of_request, read_frame, to_answer, to_request

from .serving import run

MCP = f"small={sys.executable} {Path(__file__).with_name('mcp_server.py')}"


@asynccontextmanager
async def site() -> AsyncIterator[str]:
    """A host that says its name: /silence is not answered."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked = await reader.readuntil(b"\r\n\r\n")
        if b"/silence" in asked:
            await reader.read()
        else:
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\n\xff\x00x")
            await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()


@asynccontextmanager
async def outside(*hosts: str, servers: tuple[str, ...] = ()) -> AsyncIterator[Outside]:
    opened = await Outside.open(Allowed(hosts, servers))
    try:
        yield opened
    finally:
        await opened.close()


def get(url: str) -> HttpRequest:
    return HttpRequest.parse("GET", url, [Header("x", "ÿ")], "")


async def answered(opened: Outside, url: str) -> HttpResponse:
    """Once its process is up."""
    async with asyncio.timeout(20):
        while True:
            try:
                return await opened.request(get(url))
            except Closed:
                await asyncio.sleep(0.05)


def test_what_crosses_the_pipe_comes_out_as_it_was() -> None:
    async def test() -> None:
        request = HttpRequest.parse("POST", "https://a.org/x?y", [Header("x", "ÿ")], "é")
        for answer in (ToolResult("é", True, False), HttpResponse(200, [Header("x", "ÿ")], b"\xff\0", True)):
            assert to_answer(*await through(*of_answer(answer))) == answer
        assert to_request(*await through(*of_request(request))) == request
        for error in (NotFound("a"), Denied("b"), Closed("c"), Internal("d"), LimitExceeded("e", "http_headers")):
            with pytest.raises(type(error), match=error.message) as raised:
                to_answer(*await through(of_error(error), b""))
            assert getattr(raised.value, "limit", "") == getattr(error, "limit", "")
    run(test())


async def through(head: dict[str, object], body: bytes) -> tuple[dict[str, object], bytes]:
    reader = asyncio.StreamReader()
    reader.feed_data(frame(head, body))
    return await read_frame(reader)


def test_hosts_and_tools_are_reached_through_it() -> None:
    async def test() -> None:
        async with site() as host, outside(host, servers=(MCP,)) as opened:
            assert "small.add" in [tool.name for tool in opened.catalog()]
            assert (await opened.call("small.add", {"first": 1, "second": 2})).text == "3"
            assert (await opened.request(get(f"http://{host}/"))).body == b"\xff\x00x"
            with pytest.raises(Denied, match="no public address"):
                await opened.request(get("http://127.0.0.2:1/"))
            with pytest.raises(NotFound, match="absent"):
                await opened.call("small.absent", {})
            calls = [asyncio.create_task(opened.request(get(f"http://{host}/silence"))) for _ in range(5)]
            await asyncio.sleep(0.1)
            for task in calls:
                task.cancel()
            done: list[CadenzaError | BaseException | HttpResponse] = list(
                await asyncio.gather(*calls, return_exceptions=True))
            assert all(isinstance(each, asyncio.CancelledError) for each in done)
            assert (await opened.request(get(f"http://{host}/"))).status == 200
    run(test())


def test_calls_fail_when_it_dies_and_it_is_started_again() -> None:
    async def test() -> None:
        async with site() as host, outside(host) as opened:
            await answered(opened, f"http://{host}/")
            waiting = asyncio.create_task(opened.request(get(f"http://{host}/silence")))
            await asyncio.sleep(0.05)
            os.kill(child_of(os.getpid()), signal.SIGKILL)
            with pytest.raises(Closed, match="started again"):
                await waiting
            assert (await answered(opened, f"http://{host}/")).status == 200
        assert child_of(os.getpid()) == 0, "it ends with the daemon"
    run(test())


def child_of(parent: int) -> int:
    """Its outside process; 0 if there is none."""
    children = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
    named = [int(pid) for pid in children if b"outside_child" in Path(f"/proc/{pid}/cmdline").read_bytes()]
    return named[0] if named else 0


def test_malformed_options_are_refused_before_anything_is_started() -> None:
    async def test() -> None:
        with pytest.raises(Invalid):
            await Outside.open(Allowed(("http://a",)))
    run(test())
