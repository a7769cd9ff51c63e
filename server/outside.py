"""The performer of calls that leave the daemon: in a process of its own, so that no answer takes the kernel's time.

    Outside ──frames──▶ outside_child ──▶ HttpTools, McpTools        it dies ──▶ open calls fail, it is started again
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from cadenza.kernel.http_request import HttpRequest, HttpResponse
from cadenza.kernel.tools import Tool, ToolResult
from cadenza.kvfs.errors import Closed
from cadenza.server.allowed import Allowed
from cadenza.server.limits import OUTSIDE_RESTART_SECONDS, OUTSIDE_STOP_SECONDS
from cadenza.server.outside_wire import Frame, Head, frame, of_request, read_frame, to_answer

log = logging.getLogger(__name__)

COMMAND = (sys.executable, "-P", "-m", "cadenza.server.outside_child")
DEAD = "the process that calls hosts and tools has ended, and is started again; ask again later"


class Outside:
    """A kernel.tools.Performer."""

    def __init__(self, allowed: Allowed) -> None:
        self._allowed = allowed
        self._tools: list[Tool] = []
        self._calls: dict[int, asyncio.Future[Frame]] = {}
        self._next = 1
        self._pipe: asyncio.StreamWriter | None = None
        self._ready = asyncio.Event()        # what it can do is known
        self._keeper = asyncio.get_running_loop().create_task(self._keep())

    @classmethod
    async def open(cls, allowed: Allowed) -> Outside:
        """With every MCP server started, or failed to be. Raises Invalid for options that are malformed."""
        allowed.as_manifest()
        outside = cls(allowed)
        await outside._ready.wait()
        return outside

    def catalog(self) -> Sequence[Tool]:
        return self._tools

    async def call(self, name: str, arguments: Mapping[str, Any]) -> ToolResult:
        answer = to_answer(*await self._ask({"tool": name, "arguments": arguments}))
        assert isinstance(answer, ToolResult)
        return answer

    async def request(self, request: HttpRequest) -> HttpResponse:
        answer = to_answer(*await self._ask(*of_request(request)))
        assert isinstance(answer, HttpResponse)
        return answer

    async def close(self) -> None:
        """Idempotent."""
        self._keeper.cancel()
        await asyncio.wait([self._keeper])

    async def _ask(self, head: Head, body: bytes = b"") -> Frame:
        """Raises Closed. Cancelled, it tells the child so."""
        number, pipe = self._next, self._pipe
        if pipe is None:
            raise Closed(DEAD)
        self._next += 1
        answered: asyncio.Future[Frame] = asyncio.get_running_loop().create_future()
        self._calls[number] = answered
        pipe.write(frame({"id": number, **head}, body))
        try:
            return await answered
        finally:
            if self._calls.pop(number, None) is not None and pipe is self._pipe:
                pipe.write(frame({"cancel": number}))

    async def _keep(self) -> None:
        while True:
            life = asyncio.create_task(self._live())
            try:
                await asyncio.wait([life])
            finally:
                life.cancel()
                await asyncio.wait([life])
            self._ready.set()
            log.warning("the outside process has ended; started again in %g s", OUTSIDE_RESTART_SECONDS,
                        exc_info=life.exception())
            await asyncio.sleep(OUTSIDE_RESTART_SECONDS)

    async def _live(self) -> None:
        """From its start to its end."""
        child = await asyncio.create_subprocess_exec(
            *COMMAND, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, start_new_session=True)
        try:
            await self._listen(child)
        finally:
            self._fail_all()
            await asyncio.shield(_stop(child))

    async def _listen(self, child: asyncio.subprocess.Process) -> None:
        """Until it says no more."""
        assert child.stdin is not None
        assert child.stdout is not None
        self._pipe = child.stdin
        self._pipe.write(frame({"hosts": self._allowed.hosts, "servers": self._allowed.servers}))
        with contextlib.suppress(asyncio.IncompleteReadError):
            while True:
                head, body = await read_frame(child.stdout)
                if "catalog" in head:
                    self._tools = [Tool(*each) for each in head["catalog"]]
                    self._ready.set()
                    continue
                answered = self._calls.pop(head["id"], None)
                if answered is not None and not answered.done():
                    answered.set_result((head, body))

    def _fail_all(self) -> None:
        self._pipe = None
        calls, self._calls = self._calls, {}
        for answered in calls.values():
            if not answered.done():
                answered.set_exception(Closed(DEAD))


async def _stop(child: asyncio.subprocess.Process) -> None:
    """Closes its input; kills it if it does not end by that."""
    assert child.stdin is not None
    child.stdin.close()
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(child.wait(), OUTSIDE_STOP_SECONDS)
    with contextlib.suppress(ProcessLookupError):
        child.kill()
    await child.wait()
