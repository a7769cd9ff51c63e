"""MCP servers, real ones in processes of their own: kept running, listed, called; their faults named."""

from __future__ import annotations

import asyncio
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from cadenza.kernel.limits import TOOL_TEXT_BYTES
from cadenza.kvfs.errors import Closed, Invalid, NotFound
from cadenza.server.allowed import Allowed, McpTarget
from cadenza.server.limits import MCP_MESSAGE_BYTES
from cadenza.server.mcp_tools import McpTools

from .serving import run

SCRIPT = Path(__file__).with_name("mcp_server.py")
COMMAND = f"{sys.executable} {SCRIPT}"


@asynccontextmanager
async def servers(*targets: str) -> AsyncIterator[McpTools]:
    tools = McpTools([McpTarget.parse(text) for text in targets])
    try:
        await tools.started()
        yield tools
    finally:
        await tools.close()


async def restarted(tools: McpTools) -> str:
    """An answer of `small` once it is up again."""
    async with asyncio.timeout(20):
        while True:
            try:
                return (await tools.call("small.add", {"first": 1, "second": 1})).text
            except Closed:
                await asyncio.sleep(0.1)


def test_tools_are_listed_and_called_and_fail_in_their_own_words() -> None:
    async def test() -> None:
        async with servers(f"small={COMMAND}") as tools:
            named = {tool.name: tool for tool in tools.catalog()}
            assert named["small.add"].description == "Adds two numbers."
            assert '"first"' in named["small.add"].input_schema
            sums = await asyncio.gather(*(tools.call("small.add", {"first": n, "second": 1}) for n in range(20)))
            assert [result.text for result in sums] == [str(n + 1) for n in range(20)]
            failed = await tools.call("small.fail", {})
            assert failed.failed
            assert "it was not to be" in failed.text
            wrong = await tools.call("small.add", {"first": "one"})
            assert wrong.failed
            with pytest.raises(NotFound, match="no tool 'absent'"):
                await tools.call("small.absent", {})
    run(test())


def test_a_long_answer_is_cut_and_one_that_is_too_long_for_a_message_fails() -> None:
    async def test() -> None:
        async with servers(f"small={COMMAND}") as tools:
            whole = await tools.call("small.say", {"size": 1000})
            assert (len(whole.text), whole.cut) == (1000, False)
            most = await tools.call("small.say", {"size": TOOL_TEXT_BYTES})
            assert (len(most.text), most.cut) == (TOOL_TEXT_BYTES, False)
            more = await tools.call("small.say", {"size": TOOL_TEXT_BYTES + 1})
            assert (len(more.text), more.cut) == (TOOL_TEXT_BYTES, True)
            beside = asyncio.create_task(tools.call("small.sleep", {"seconds": 0.3}))
            refused = await tools.call("small.say", {"size": 3 * MCP_MESSAGE_BYTES})
            assert refused.failed
            assert str(MCP_MESSAGE_BYTES) in refused.text
            assert (await beside).text == "awake", "the server lives on"
    run(test())


def test_a_server_that_dies_is_named_and_started_again() -> None:
    async def test() -> None:
        async with servers(f"small={COMMAND}") as tools:
            with pytest.raises(Closed, match="'small' went away during the call"):
                await tools.call("small.die", {})
            with pytest.raises(Closed, match="'small' is down: it has closed its output"):
                await tools.call("small.add", {"first": 1, "second": 1})
            assert tools.catalog(), "its tools are known still"
            assert await restarted(tools) == "2"
    run(test())


def test_a_server_that_cannot_start_keeps_nobody_from_the_others() -> None:
    async def test() -> None:
        async with servers("absent=/no/such/program", f"mute={sys.executable} -c pass", f"small={COMMAND}") as tools:
            with pytest.raises(Closed, match=r"'absent' is down.*No such file"):
                await tools.call("absent.x", {})
            with pytest.raises(Closed, match="'mute' is down: it has closed its output"):
                await tools.call("mute.x", {})
            assert (await tools.call("small.add", {"first": 2, "second": 3})).text == "5"
    run(test())


def test_a_call_that_is_given_up_leaves_the_server_as_it_was() -> None:
    async def test() -> None:
        async with servers(f"small={COMMAND}") as tools:
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.2):
                    await tools.call("small.sleep", {"seconds": 30})
            assert (await tools.call("small.add", {"first": 2, "second": 3})).text == "5"
    run(test())


def test_arguments_that_cannot_be_sent_are_refused_and_harm_nobody() -> None:
    async def test() -> None:
        deep: object = 1
        for _ in range(200):
            deep = [deep]
        async with servers(f"small={COMMAND}") as tools:
            for wrong in ({"first": "\ud800"}, {"first": deep}, {"\ud800": 1}):
                with pytest.raises(Invalid, match="cannot be sent"):
                    await tools.call("small.add", wrong)
            for odd in ({"first": float("nan"), "second": 1}, {"first": "one", "second": 1}, {}):
                assert (await tools.call("small.add", odd)).failed
            nested: object = 0
            for _ in range(100):
                nested = [nested]
            assert (await tools.call("small.add", {"first": nested, "second": 1})).failed
            assert (await tools.call("small.add", {"first": 1, "second": 1})).text == "2"
    run(test())


def test_a_server_over_http() -> None:
    async def test() -> None:
        with socket.create_server(("127.0.0.1", 0)) as probe:
            port = probe.getsockname()[1]
        async with over_http(port), servers(f"small=http://127.0.0.1:{port}/mcp") as tools:
            assert (await tools.call("small.add", {"first": 2, "second": 3})).text == "5"
            with pytest.raises(Closed, match=str(MCP_MESSAGE_BYTES)):
                await tools.call("small.say", {"size": 3 * MCP_MESSAGE_BYTES})
            assert (await tools.call("small.add", {"first": 2, "second": 3})).text == "5", "the server lives on"
    run(test())


def test_a_server_over_http_that_goes_away_and_comes_back() -> None:
    async def test() -> None:
        with socket.create_server(("127.0.0.1", 0)) as probe:
            port = probe.getsockname()[1]
        async with over_http(port):
            tools = McpTools([McpTarget.parse(f"small=http://127.0.0.1:{port}/mcp")])
            await tools.started()
            assert tools.catalog()
        try:
            with pytest.raises(Closed, match="'small'"):
                await tools.call("small.add", {"first": 2, "second": 3})
            async with over_http(port):
                assert await restarted(tools) == "2"
        finally:
            await tools.close()
    run(test())


@asynccontextmanager
async def over_http(port: int) -> AsyncIterator[None]:
    child = await asyncio.create_subprocess_exec(sys.executable, str(SCRIPT), str(port),
                                                 stderr=asyncio.subprocess.DEVNULL)
    try:
        await listening(port)
        yield
    finally:
        child.kill()
        await child.wait()


async def listening(port: int) -> None:
    async with asyncio.timeout(20):
        while True:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
            except OSError:
                await asyncio.sleep(0.05)
                continue
            writer.close()
            await writer.wait_closed()
            return


def test_what_an_operator_allows_is_checked() -> None:
    asked = Allowed(("a.org", "127.0.0.1:80"), ("b=x", "c=https://c.org/mcp")).as_manifest()
    assert (asked.names_tool("b.any"), asked.names_tool("d.any")) == (True, False)
    assert asked.names_host("https", "a.org", 443)
    for wrong, words in ((Allowed(("https://a.org",)), "no scheme"), (Allowed((), ("a=x", "a=y")), "twice"),
                         (Allowed((), ("a",)), "NAME")):
        with pytest.raises(Invalid, match=words):
            wrong.as_manifest()


def test_how_servers_are_named() -> None:
    assert McpTarget.parse("a=x 'y z'") == McpTarget("a", command=("x", "y z"))
    assert McpTarget.parse("a=https://b.org/mcp") == McpTarget("a", url="https://b.org/mcp")
    for text in ("", "a", "=x", "a=", "a b=x", "a.b=x", "a='x"):
        with pytest.raises(Invalid):
            McpTarget.parse(text)
