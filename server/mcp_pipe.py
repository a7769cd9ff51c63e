"""An MCP server as a child process: one JSON-RPC message a line, each of bounded length, both ways.

In place of the package's own transport, which takes lines of any length: what it would parse at once, everybody would
wait for.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import TypeAlias

import anyio
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream
from mcp.shared.message import SessionMessage
from mcp_types import INTERNAL_ERROR, ErrorData, JSONRPCError, JSONRPCMessage, jsonrpc_message_adapter

from cadenza.server.limits import MCP_MESSAGE_BYTES, MCP_STOP_SECONDS

Incoming: TypeAlias = SessionMessage | Exception
HEAD_BYTES = 256                            # of a message: enough for its id
ANSWER = re.compile(rb'\{\s*"jsonrpc"\s*:\s*"2\.0"\s*,\s*"id"\s*:\s*([0-9]{1,15})\b')
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
    async with to:
        with contextlib.suppress(asyncio.IncompleteReadError):
            while True:
                line, whole = await _line(child.stdout)
                message = _message(line) if whole else _refusal(line)
                if message is not None:
                    await to.send(SessionMessage(message))
    ended("it has closed its output")


async def _line(reader: asyncio.StreamReader) -> tuple[bytes, bool]:
    """The next line; of one that is too long its beginning, and False. Raises IncompleteReadError at the end."""
    head = b""
    while True:
        try:
            line = await reader.readuntil(b"\n")
        except asyncio.LimitOverrunError as overrun:
            head = head or (await reader.readexactly(min(overrun.consumed, HEAD_BYTES)))
            await reader.readexactly(max(0, overrun.consumed - HEAD_BYTES))
        else:
            return (head, False) if head else (line, True)


def _message(line: bytes) -> JSONRPCMessage | None:
    """None for what is none: servers print."""
    try:
        return jsonrpc_message_adapter.validate_json(line, by_name=False)
    except ValueError:
        return None


def _refusal(head: bytes) -> JSONRPCMessage | None:
    """What is answered in place of an answer that is too long. None if it is not one: then nobody waits for it."""
    answer = ANSWER.match(head)
    if answer is None:
        return None
    error = ErrorData(code=INTERNAL_ERROR, message=f"the answer has over {MCP_MESSAGE_BYTES} bytes, the limit")
    return JSONRPCError(jsonrpc="2.0", id=int(answer[1]), error=error)


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
