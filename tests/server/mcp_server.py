"""A small MCP server, for tests: `python mcp_server.py [stdio | PORT]`."""

from __future__ import annotations

import asyncio
import os
import sys

from mcp.server import MCPServer
from mcp.server.mcpserver.exceptions import ToolError

server = MCPServer("small")


@server.tool()
def add(first: int, second: int) -> str:
    """Adds two numbers."""
    return str(first + second)


@server.tool()
def fail() -> str:
    """Always fails."""
    raise ToolError("it was not to be")


@server.tool()
def say(size: int) -> str:
    """Says a lot."""
    return "x" * size


@server.tool()
def environment(name: str) -> str:
    """What a variable of its environment holds."""
    return os.environ.get(name, "")


@server.tool()
async def sleep(seconds: float) -> str:
    """Takes its time."""
    await asyncio.sleep(seconds)
    return "awake"


@server.tool()
def die() -> str:
    """Ends the server."""
    os._exit(3)


if __name__ == "__main__":
    if sys.argv[1:] in ([], ["stdio"]):
        server.run("stdio")
    else:
        server.run("streamable-http", port=int(sys.argv[1]))
