"""The performer of the tools that leave the daemon: HTTP and MCP, as the operator allows them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from cadenza.kernel.http_request import HttpRequest, HttpResponse
from cadenza.kernel.tools import Tool, ToolResult
from cadenza.kvfs.errors import NotFound
from cadenza.server.allowed import Allowed
from cadenza.server.http_tools import HttpTools

if TYPE_CHECKING:
    from cadenza.server.mcp_tools import McpTools


class Outside:
    """A kernel.tools.Performer."""

    def __init__(self, http: HttpTools, servers: McpTools | None) -> None:
        self._http = http
        self._servers = servers

    @classmethod
    async def open(cls, allowed: Allowed) -> Outside:
        """With every MCP server started, or failed to be. Raises Invalid."""
        http = HttpTools(allowed.as_manifest())
        if not allowed.servers:
            return cls(http, None)
        from cadenza.server.mcp_tools import McpTools  # takes a second: only if there are any

        servers = McpTools(allowed.targets)
        await servers.started()
        return cls(http, servers)

    def catalog(self) -> Sequence[Tool]:
        return self._servers.catalog() if self._servers is not None else ()

    async def call(self, name: str, arguments: Mapping[str, Any]) -> ToolResult:
        if self._servers is None:
            raise NotFound(f"no MCP server has the tool {name!r}")
        return await self._servers.call(name, arguments)

    async def request(self, request: HttpRequest) -> HttpResponse:
        return await self._http.request(request)

    async def close(self) -> None:
        self._http.close()
        if self._servers is not None:
            await self._servers.close()
