"""An MCP server as a child process: one JSON-RPC message a line, each of bounded length, both ways.

In place of the package's own transport, which takes lines of any length: what it would parse at once, everybody would
wait for.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import TypeAlias

import anyio
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream
from mcp.shared.message import SessionMessage
from mcp_types import jsonrpc_message_adapter

from cadenza.server.limits import MCP_MESSAGE_BYTES, MCP_STOP_SECONDS

Incoming: TypeAlias = SessionMessage | Exception
Streams = tuple[MemoryObjectReceiveStream[Incoming], MemoryObjectSendStream[SessionMessage]]


@asynccontextmanager
async def mcp_pipe(command: Sequence[str], ended: Callable[[str], None]) -> AsyncIterator[Streams]:
    """Starts the server, with this process's environment and error stream; at the end, ends it and all that it started.
    `ended` is told why it says no more. Raises OSError."""
    child = await asyncio.create_subprocess_exec(
        *command, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, limit=MCP_MESSAGE_BYTES,
        start_new_session=True)
    incoming, received = anyio.create_memory_object_stream[Incoming](0)
    sent, outgoing = anyio.create_memory_object_stream[SessionMessage](0)
    tasks = [asyncio.create_task(_read(child, incoming, ended)), asyncio.create_task(_write(child, outgoing))]
    try:
        yield received, sent
    finally:
        for task in tasks:
            task.cancel()
        for stream in (incoming, received, sent, outgoing):
            stream.close()
        await asyncio.shield(_stop(child))


async def _read(child: asyncio.subprocess.Process, to: MemoryObjectSendStream[Incoming],
                ended: Callable[[str], None]) -> None:
    assert child.stdout is not None
    why = "it has closed its output"
    async with to:
        while True:
            try:
                line = await child.stdout.readline()
            except ValueError:
                why = f"it sent a message of over {MCP_MESSAGE_BYTES} bytes"
                break
            if not line:
                break
            try:
                message: Incoming = SessionMessage(jsonrpc_message_adapter.validate_json(line, by_name=False))
            except ValueError:
                continue                     # servers print; what is no message is nobody's answer
            await to.send(message)
    ended(why)


async def _write(child: asyncio.subprocess.Process, outgoing: MemoryObjectReceiveStream[SessionMessage]) -> None:
    assert child.stdin is not None
    async with outgoing:
        async for each in outgoing:
            child.stdin.write(each.message.model_dump_json(by_alias=True, exclude_unset=True).encode() + b"\n")
            with contextlib.suppress(ConnectionError):        # then its output has ended as well
                await child.stdin.drain()


async def _stop(child: asyncio.subprocess.Process) -> None:
    """Closes its input, as MCP has it; who does not go by that is killed, with its children."""
    assert child.stdin is not None
    child.stdin.close()
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(child.wait(), MCP_STOP_SECONDS)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGKILL)
    await child.wait()
