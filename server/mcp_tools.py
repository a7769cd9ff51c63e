"""Tools of MCP servers that the operator has registered: each is kept running, and called in the name of programs.

    starting ──▶ up ──▶ down (it died, it broke the protocol) ──▶ starting, after a pause that doubles
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any

from anyio import BrokenResourceError, ClosedResourceError
from mcp import ClientSession, MCPError
from mcp_types import (
    CONNECTION_CLOSED,
    CallToolResult,
    EmbeddedResource,
    PaginatedRequestParams,
    TextContent,
    TextResourceContents,
)
from mcp_types import Tool as McpTool
from pydantic_core import to_json

from cadenza.kernel.limits import TOOL_TEXT_BYTES
from cadenza.kernel.manifest import TOOL
from cadenza.kernel.tools import Tool, ToolResult
from cadenza.kvfs.errors import Closed, Invalid, NotFound
from cadenza.server.allowed import McpTarget
from cadenza.server.limits import (
    MCP_DESCRIPTION_BYTES,
    MCP_RESTART_SECONDS,
    MCP_RESTART_SECONDS_MOST,
    MCP_START_SECONDS,
    MCP_TOOLS,
)
from cadenza.server.mcp_http import mcp_http
from cadenza.server.mcp_pipe import mcp_pipe

log = logging.getLogger(__name__)

MARGIN_LEVELS = 100                         # of lists around the arguments, when it is tried whether they can be sent


class McpServer:
    """`tools` are those that it listed when it was last up."""

    def __init__(self, target: McpTarget, changed: Callable[[], None]) -> None:
        self.name = target.name
        self.tools: tuple[Tool, ...] = ()
        self._target = target
        self._changed = changed
        self._session: ClientSession | None = None
        self._why = "it is being started"
        self._down = asyncio.Event()
        self.tried = asyncio.Event()         # it was up once, or has failed to be
        self._pause = MCP_RESTART_SECONDS
        self._keeper = asyncio.get_running_loop().create_task(self._keep())

    async def call(self, name: str, arguments: Mapping[str, Any]) -> ToolResult:
        """Raises NotFound, Invalid, Closed."""
        await self.tried.wait()
        session = self._session
        if session is None:
            raise Closed(f"MCP server {self.name!r} is down: {self._why}; it is started again within "
                         f"{MCP_RESTART_SECONDS_MOST:g} s")
        if all(tool.name != f"{self.name}.{name}" for tool in self.tools):
            raise NotFound(f"MCP server {self.name!r} has no tool {name!r}")
        check_sendable(arguments)
        try:
            return result_of(await session.call_tool(name, dict(arguments)))
        except MCPError as error:
            if error.code == CONNECTION_CLOSED or self._session is not session:
                raise Closed(f"MCP server {self.name!r} went away during the call: {self._why_now(error)}") from None
            self._notice(error)
            return ToolResult(error.message[:TOOL_TEXT_BYTES], failed=True, cut=False)
        except (ClosedResourceError, BrokenResourceError) as error:
            raise Closed(f"MCP server {self.name!r} went away during the call: {self._why_now(error)}") from None
        except (RuntimeError, ValueError) as error:
            raise Closed(f"MCP server {self.name!r} broke the protocol: {error}") from None

    async def close(self) -> None:
        """Idempotent."""
        self._keeper.cancel()
        await asyncio.wait([self._keeper])

    def _notice(self, error: MCPError) -> None:
        """A session over HTTP that its server does not know any more is begun anew."""
        if self._target.url and "ession" in error.message:
            self._end(error.message)

    def _why_now(self, error: BaseException) -> str:
        return self._why if self._down.is_set() else str(error) or type(error).__name__

    def _end(self, why: str) -> None:
        self._why, self._session = why, None
        self._down.set()

    async def _keep(self) -> None:
        while True:
            self._down.clear()
            life = asyncio.create_task(self._live())
            try:
                await asyncio.wait([life])
            finally:
                life.cancel()
                await asyncio.wait([life])
            self._session = None
            why = why_of(life)
            self._why = self._why if self._down.is_set() else why
            self.tried.set()
            log.warning("MCP server %r is down: %s; started again in %g s", self.name, self._why, self._pause)
            await asyncio.sleep(self._pause)
            self._pause = min(2 * self._pause, MCP_RESTART_SECONDS_MOST)

    async def _live(self) -> None:
        """From its start to its end."""
        async with self._streams() as (incoming, outgoing), ClientSession(incoming, outgoing) as session:
            async with asyncio.timeout(MCP_START_SECONDS):
                await session.initialize()
                await self._learn(session)
            self._session = session
            self._pause = MCP_RESTART_SECONDS
            self.tried.set()
            await self._down.wait()

    async def _learn(self, session: ClientSession) -> None:
        tools = await self._list(session)
        if tools != self.tools:
            self.tools = tools
            self._changed()

    def _streams(self) -> AbstractAsyncContextManager[Any]:
        target = self._target
        return mcp_http(target.url) if target.url else mcp_pipe(target.command, self._end)

    async def _list(self, session: ClientSession) -> tuple[Tool, ...]:
        """Page by page, up to MCP_TOOLS."""
        found: list[Tool] = []
        cursor: str | None = None
        while len(found) < MCP_TOOLS:
            page = await session.list_tools(params=PaginatedRequestParams(cursor=cursor) if cursor else None)
            found += [tool for tool in map(self._described, page.tools) if tool is not None]
            cursor = page.next_cursor
            if not cursor:
                break
        return tuple(found[:MCP_TOOLS])

    def _described(self, tool: McpTool) -> Tool | None:
        """None for one that programs could not name, or that says too much of itself."""
        name, schema = f"{self.name}.{tool.name}", json.dumps(tool.input_schema)
        description = tool.description or ""
        if not TOOL.fullmatch(name) or len(schema) + len(description) > MCP_DESCRIPTION_BYTES:
            log.warning("tool %r of MCP server %r is left out: its name, or the length of its description", tool.name,
                        self.name)
            return None
        return Tool(name, description, schema)


class McpTools:
    """All servers, by name. `changed` is called when one lists other tools than before."""

    def __init__(self, targets: Sequence[McpTarget], changed: Callable[[], None] = lambda: None) -> None:
        self._servers = {target.name: McpServer(target, changed) for target in targets}

    async def started(self) -> None:
        """Each is up, or has failed to start once."""
        for server in self._servers.values():
            await server.tried.wait()

    def catalog(self) -> list[Tool]:
        return [tool for server in self._servers.values() for tool in server.tools]

    async def call(self, name: str, arguments: Mapping[str, Any]) -> ToolResult:
        server, _, tool = name.partition(".")
        return await self._servers[server].call(tool, arguments)

    async def close(self) -> None:
        await asyncio.gather(*(server.close() for server in self._servers.values()))


def check_sendable(arguments: Mapping[str, Any]) -> None:
    """Raises Invalid for what the package would fail to send, in a task that all calls share, or the server's to read:
    it nests too deep (writers take 255 levels, readers 200), or holds half of a character."""
    wrapped: object = arguments
    for _ in range(MARGIN_LEVELS):
        wrapped = [wrapped]
    try:
        to_json(wrapped)
    except ValueError as error:
        raise Invalid(f"the arguments cannot be sent: {error}", "arguments") from None


def result_of(result: CallToolResult) -> ToolResult:
    """Its text, up to TOOL_TEXT_BYTES; of what is no text, what it is."""
    whole = "\n".join(text_of(block) for block in result.content).encode(errors="replace")
    text = whole[:TOOL_TEXT_BYTES].decode(errors="ignore")
    return ToolResult(text, failed=bool(result.is_error), cut=len(whole) > TOOL_TEXT_BYTES)


def text_of(block: Any) -> str:
    if isinstance(block, TextContent):
        return block.text
    if isinstance(block, EmbeddedResource) and isinstance(block.resource, TextResourceContents):
        return block.resource.text
    return f"[{block.type} {getattr(block, 'mime_type', None) or getattr(block, 'uri', '')}]".replace(" ]", "]")


def why_of(life: asyncio.Task[None]) -> str:
    """The first cause: task groups wrap what they are ended by."""
    error = None if life.cancelled() else life.exception()
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    if isinstance(error, TimeoutError):
        return f"it did not start within {MCP_START_SECONDS:g} s"
    return "it has ended" if error is None else str(error) or type(error).__name__
