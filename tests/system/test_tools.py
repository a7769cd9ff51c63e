"""Programs that reach beyond the kernel: a manifest, an operator, a real web server, a real MCP server."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from cadenza.kvfs.errors import Invalid
from cadenza.server.allowed import Allowed

from .whole import in_loop, output, whole

MCP = f"{sys.executable} {Path(__file__).parent.parent / 'server' / 'mcp_server.py'}"

AGENT = """
# /// cadenza
# hosts = ["127.0.0.1:{port}"]
# tools = ["small.*"]
# ///
import asyncio, cadenza
from cadenza import http, remote

async def main(args):
    while not remote.catalog():                      # its server is on its way up
        await asyncio.sleep(0.1)
    print(*(tool.name for tool in remote.catalog()))
    page, total = await asyncio.gather(
        http.post("http://127.0.0.1:{port}/page", params={{"q": "a b"}}, json={{"x": 1}}, timeout=20, binary=True),
        remote.call("small.add", first=40, second=2))
    print(page.status, page.headers["content-type"], page.json(), page.content[:1], total.text)
    print((await remote.call("small.fail")).failed)
    try:
        await remote.call_with("small.sleep", {{"seconds": 60}}, timeout=0.1, expected=60)
    except cadenza.Cancelled as error:
        print(error)
    for attempt in (http.get("http://localhost:{port}/"), http.get("http://127.0.0.1:{port}/silence", timeout=0.2),
                    remote.call("big.add", first=1)):
        try:
            await attempt
        except cadenza.Error as error:
            print(type(error).__name__, error)
    task = asyncio.create_task(http.get("http://127.0.0.1:{port}/silence"))
    await asyncio.sleep(0.1)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    print("cancelled", task.cancelled())
    for _ in range(args.get("hang", 0)):
        http.submit("GET", "http://127.0.0.1:{port}/silence")
    print("done")
    if args.get("hang"):
        await asyncio.sleep(1000)
"""


@asynccontextmanager
async def site() -> AsyncIterator[tuple[int, list[str]]]:
    """Its port, and the connections that are open: answers JSON, but for /silence."""
    connections: list[str] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        path = (await reader.readuntil(b"\r\n\r\n")).decode().split()[1]
        connections.append(path)
        if path == "/silence":
            await reader.read()
        else:
            body = json.dumps({"path": path}).encode()
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(body))
            writer.write(body)
            await writer.drain()
        connections.remove(path)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1], connections
    finally:
        server.close()


def test_an_agent_reaches_what_it_asks_for_and_the_operator_allows(tmp_path: Path) -> None:
    async def test() -> None:
        async with site() as (port, connections):
            allowed = Allowed((f"127.0.0.1:{port}",), (f"small={MCP}", f"big={MCP}"))
            async with whole(tmp_path, allowed=allowed) as system:
                process = await system.run(AGENT.format(port=port))
                said = output(process).splitlines()
                assert "small.add" in said[0].split()
                assert "big.add" not in said[0]
                assert said[1] == "200 application/json {'path': '/page?q=a+b'} b'{' 42"
                assert said[2] == "True"
                assert "small.sleep did not answer within 0.1 s" in said[3]
                assert f"Denied host 'localhost:{port}' is not in the manifest" in said[4]
                assert said[5].startswith("Cancelled")
                assert "Denied tool 'big.add' is not in the manifest" in said[6]
                assert said[7:] == ["cancelled True", "done"]
                assert (process.exit.ending if process.exit else "", output(process, "error")) == ("finished", "")
                assert system.kernel.statistics()["tools_open"] == 0
                assert (system.kernel.engine.waits.times.mean("ada", "small.sleep") or 0) >= 0
                await gone(connections)
    in_loop(test)


def test_a_program_that_is_killed_leaves_no_call_behind(tmp_path: Path) -> None:
    async def test() -> None:
        async with site() as (port, connections):
            allowed = Allowed((f"127.0.0.1:{port}",), (f"small={MCP}", f"big={MCP}"))
            async with whole(tmp_path, allowed=allowed) as system:
                process = await system.start(AGENT.format(port=port), {"hang": 20})
                async with asyncio.timeout(30):
                    while connections.count("/silence") < 20:
                        await asyncio.sleep(0.02)
                assert system.kernel.statistics()["tools_running"] == 20
                assert process.waiting_for == "timer"
                process.kill()
                await gone(connections)
                numbers = system.kernel.statistics()
                assert (numbers["tools_open"], numbers["tools_running"]) == (0, 0)
    in_loop(test)


async def gone(connections: list[str]) -> None:
    async with asyncio.timeout(10):
        while connections:
            await asyncio.sleep(0.01)


def test_a_manifest_is_a_part_of_the_image_and_is_checked_when_it_is_uploaded(tmp_path: Path) -> None:
    async def test() -> None:
        source = b"# /// cadenza\n# hosts = ['a.org']\n# ///\nasync def main(args): pass\n"
        async with whole(tmp_path) as system:
            image = await system.kernel.images.add("ada", source)
            assert image.manifest.hosts == ("a.org",)
            with pytest.raises(Invalid, match=r"main\.py:1: .*'a/b'"):
                await system.kernel.images.add("ada", source.replace(b"a.org", b"a/b"))
        async with whole(tmp_path) as system:
            assert system.kernel.images.get("ada", image.digest) == image, "it is kept with the image"
    in_loop(test)


def test_without_a_manifest_nothing_is_reached(tmp_path: Path) -> None:
    async def test() -> None:
        source = ("import cadenza\nasync def main(args):\n"
                  "    try: await cadenza.http.get('http://127.0.0.1/')\n"
                  "    except cadenza.Denied as error: print(error)\n"
                  "    print(cadenza.remote.catalog())\n")
        async with whole(tmp_path, allowed=Allowed(("*", "127.0.0.1"))) as system:
            process = await system.run(source)
            said = output(process).splitlines()
            assert "manifest" in said[0]
            assert said[1] == "[]"
    in_loop(test)
