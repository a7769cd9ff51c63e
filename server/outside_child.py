"""The process that talks to other machines: `python -m cadenza.server.outside_child`, started by outside.py.

What hosts and servers send is read here, so a large or hostile answer takes nobody's time but this process's own.
"""

from __future__ import annotations

import asyncio
import logging
import sys

from cadenza.kernel.http_request import HttpResponse
from cadenza.kernel.tools import ToolResult
from cadenza.kvfs.errors import CadenzaError, Internal, NotFound
from cadenza.server.allowed import Allowed
from cadenza.server.http_tools import HttpTools
from cadenza.server.outside_wire import Head, frame, of_answer, of_error, read_frame, to_request

log = logging.getLogger(__name__)


class Caller:
    """Makes the calls of the daemon, each in a task, until its pipe ends."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, allowed: Allowed) -> None:
        self._reader, self._writer = reader, writer
        self._http = HttpTools(allowed.as_manifest())
        self._servers = None
        self._calls: dict[int, asyncio.Task[ToolResult | HttpResponse]] = {}
        if allowed.servers:
            from cadenza.server.mcp_tools import McpTools  # takes seconds: only if there are any

            self._servers = McpTools(allowed.targets, self._announce)

    async def run(self) -> None:
        ready = asyncio.create_task(self._get_ready())
        try:
            while True:
                self._obey(*await read_frame(self._reader))
                await self._writer.drain()   # a daemon that reads no answers asks nothing more
        except asyncio.IncompleteReadError:
            pass                             # the daemon has closed it, or has ended
        finally:
            ready.cancel()
            for task in self._calls.values():
                task.cancel()
            self._http.close()
            if self._servers is not None:
                await self._servers.close()

    async def _get_ready(self) -> None:
        if self._servers is not None:
            await self._servers.started()
        self._announce()

    def _announce(self) -> None:
        tools = self._servers.catalog() if self._servers is not None else []
        self._send({"catalog": [[tool.name, tool.description, tool.input_schema] for tool in tools]})

    def _obey(self, head: Head, body: bytes) -> None:
        if "cancel" in head:
            task = self._calls.get(head["cancel"])
            if task is not None:
                task.cancel()
            return
        number: int = head["id"]
        task = self._calls[number] = asyncio.create_task(self._work(head, body))
        task.add_done_callback(lambda done: self._answer(number, done))

    async def _work(self, head: Head, body: bytes) -> ToolResult | HttpResponse:
        if "request" in head:
            return await self._http.request(to_request(head, body))
        if self._servers is None:
            raise NotFound(f"no MCP server has the tool {head['tool']!r}")
        return await self._servers.call(head["tool"], head["arguments"])

    def _answer(self, number: int, task: asyncio.Task[ToolResult | HttpResponse]) -> None:
        self._calls.pop(number, None)
        if task.cancelled():
            return                           # nobody waits for it
        error = task.exception()
        if error is None:
            head, body = of_answer(task.result())
            self._send({"id": number, **head}, body)
            return
        if not isinstance(error, CadenzaError):
            log.error("a call failed", exc_info=error)
            error = Internal("the kernel failed in this call; its log says how")
        self._send({"id": number, **of_error(error)})

    def _send(self, head: Head, body: bytes = b"") -> None:
        if not self._writer.is_closing():
            self._writer.write(frame(head, body))


async def pipes() -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Standard input and output."""
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin.buffer)
    transport, protocol = await loop.connect_write_pipe(asyncio.streams.FlowControlMixin, sys.stdout.buffer)
    return reader, asyncio.StreamWriter(transport, protocol, None, loop)


async def main() -> None:
    reader, writer = await pipes()
    head, _ = await read_frame(reader)
    await Caller(reader, writer, Allowed(tuple(head["hosts"]), tuple(head["servers"]))).run()


if __name__ == "__main__":
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    asyncio.run(main())
