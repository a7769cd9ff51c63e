"""Calls that leave the machine's own world: tools of MCP servers, and HTTP. Granted, and not found.

    program ── submit ──▶ Tools: granted? within limits? ──▶ a task: its turn, then the performer ──▶ Call is ready
                          │                                                                            │
                          └── Denied, LimitExceeded: at once                                        take, close

A process is granted what its image's manifest asks for *and* the operator allows. A call counts against the limits
until its handle is closed; closing, or the end of the process, cancels it wherever it is.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from cadenza.kernel.handles import Outcome
from cadenza.kernel.http_request import HttpRequest, HttpResponse
from cadenza.kernel.limits import (
    TOOL_BYTES_PER_USER,
    TOOL_CALLS_AT_ONCE,
    TOOL_CALLS_AT_ONCE_PER_USER,
    TOOL_CALLS_PER_PROCESS,
    TOOL_CALLS_PER_USER,
    TOPIC_BYTES,
)
from cadenza.kernel.manifest import NOTHING, Manifest
from cadenza.kvfs.errors import CadenzaError, Cancelled, Denied, Internal, LimitExceeded, NotReady

if TYPE_CHECKING:
    from cadenza.kernel.process import Process

log = logging.getLogger(__name__)


class Answer(Protocol):
    @property
    def size(self) -> int:
        """Bytes that it is held for."""


A = TypeVar("A", bound=Answer)


@dataclass(frozen=True, slots=True)
class Tool:
    """`name`: SERVER.TOOL; `input_schema`: JSON Schema of its arguments, as text."""

    name: str
    description: str
    input_schema: str


@dataclass(frozen=True, slots=True)
class ToolResult:
    """`failed`: the tool itself says that it is an error; `cut`: there was more text than TOOL_TEXT_BYTES."""

    text: str
    failed: bool
    cut: bool

    @property
    def size(self) -> int:
        return len(self.text)


class Performer(Protocol):
    """Who makes the calls. Each coroutine ends soon after it is cancelled, and raises a CadenzaError with its cause."""

    def catalog(self) -> Sequence[Tool]:
        """All tools there are. Never blocks."""

    async def call(self, name: str, arguments: Mapping[str, Any]) -> ToolResult:
        """Raises NotFound, Closed."""

    async def request(self, request: HttpRequest) -> HttpResponse:
        """Raises NotFound, Denied, Closed, LimitExceeded."""

    async def close(self) -> None:
        """Idempotent."""


class User:
    """What one user has under way. `turns`: how many more calls may run now."""

    def __init__(self) -> None:
        self.open = 0                        # calls that are not closed
        self.held = 0                        # bytes of answers
        self.turns = asyncio.Semaphore(TOOL_CALLS_AT_ONCE_PER_USER)


class Call(Outcome[A]):
    """One call. Ready when there is an answer or an error. `what`: the tool, as the memory policy knows it."""

    __slots__ = ("_tools", "process", "size", "task", "user", "what")

    def __init__(self, tools: Tools, process: Process, user: User, what: str) -> None:
        super().__init__()
        self._tools, self.process, self.user = tools, process, user
        self.what = what[:TOPIC_BYTES]
        self.size = 0                        # bytes of its answer
        self.task: asyncio.Task[A] | None = None

    def take(self) -> A:
        """As often as it is asked. Raises NotReady, or the error that the call ended with."""
        if not self.ready:
            raise NotReady("the call has not been answered; wait for the handle first")
        return super().take()

    def close(self) -> None:
        task, self.task = self.task, None
        if task is not None:
            task.cancel()
            self._tools.leave(self)


class ToolCall(Call[ToolResult]):
    """Of a tool of an MCP server."""

    __slots__ = ()


class HttpCall(Call[HttpResponse]):
    """An HTTP request."""

    __slots__ = ()


class Tools:
    """`allowed`: what the operator allows. Without a performer nothing is."""

    def __init__(self, performer: Performer | None = None, allowed: Manifest = NOTHING) -> None:
        self._performer = performer
        self._allowed = allowed if performer is not None else NOTHING
        self._users: dict[str, User] = {}
        self._of_process: Counter[Process] = Counter()
        self._turns = asyncio.Semaphore(TOOL_CALLS_AT_ONCE)
        self._running = 0

    def catalog(self, process: Process) -> list[Tool]:
        """The tools that `process` is granted."""
        granted = process.image.manifest
        return [tool for tool in (self._performer.catalog() if self._performer else ())
                if granted.names_tool(tool.name) and self._allowed.names_tool(tool.name)]

    def call(self, process: Process, name: str, arguments: Mapping[str, Any], seconds: float) -> ToolCall:
        """Raises Denied, LimitExceeded. Never blocks."""
        performer = self._granted(process, "tool", name, process.image.manifest.names_tool(name),
                                  self._allowed.names_tool(name), f"--mcp {name.partition('.')[0]}=…")
        call = ToolCall(self, process, self._room(process), name)
        return self._start(call, lambda: performer.call(name, arguments), seconds)

    def request(self, process: Process, request: HttpRequest, seconds: float) -> HttpCall:
        """Raises Denied, LimitExceeded. Never blocks."""
        url = request.url
        where = (url.scheme, url.host, url.port)
        performer = self._granted(process, "host", url.authority, process.image.manifest.names_host(*where),
                                  self._allowed.names_host(*where), f"--allow-host {url.authority}")
        call = HttpCall(self, process, self._room(process), f"http {url.authority}")
        return self._start(call, lambda: performer.request(request), seconds)

    def leave(self, call: Call[Any]) -> None:
        """It is closed: it counts no more."""
        user, process = call.user, call.process
        user.open -= 1
        user.held -= call.size
        call.size = 0
        self._of_process[process] -= 1
        if not self._of_process[process]:
            del self._of_process[process]
        if not user.open:
            self._users.pop(process.owner, None)

    def _granted(self, process: Process, what: str, name: str, asked: bool, allowed: bool, option: str) -> Performer:
        if not asked:
            raise Denied(f"{what} {name!r} is not in the manifest of image {process.image.digest[:12]}: add it "
                         f"there, as `{what}s = [\"{name}\"]`, and upload it again; docs/tools.md shows how")
        if self._performer is None or not allowed:
            raise Denied(f"{what} {name!r} is not allowed here: the operator starts the daemon with `{option}`")
        return self._performer

    def _room(self, process: Process) -> User:
        user = self._users.get(process.owner) or User()
        if self._of_process[process] >= TOOL_CALLS_PER_PROCESS:
            raise LimitExceeded(f"process {process.pid} has {TOOL_CALLS_PER_PROCESS} calls open, its limit; take and "
                                "close some first", "tool_calls_per_process")
        if user.open >= TOOL_CALLS_PER_USER:
            raise LimitExceeded(f"{TOOL_CALLS_PER_USER} calls of this user are open, the limit; take and close some "
                                "first", "tool_calls_per_user")
        return user

    def _start(self, call: C, work: Callable[[], Awaitable[Any]], seconds: float) -> C:
        user, process = call.user, call.process
        self._users[process.owner] = user
        self._of_process[process] += 1
        user.open += 1
        call.task = asyncio.get_running_loop().create_task(self._perform(call, work, seconds))
        call.task.add_done_callback(lambda task: self._settle(call, task))
        return call

    async def _perform(self, call: Call[A], work: Callable[[], Awaitable[A]], seconds: float) -> A:
        """Waits for its turn, of its user first: who has many under way keeps nobody else waiting."""
        try:
            async with asyncio.timeout(seconds), call.user.turns, self._turns:
                self._running += 1
                try:
                    return await work()
                finally:
                    self._running -= 1
        except TimeoutError:
            raise Cancelled(f"{call.what} did not answer within {seconds:g} s, the timeout of the call") from None

    def _settle(self, call: Call[A], task: asyncio.Task[A]) -> None:
        """The one place where a call becomes ready."""
        if task.cancelled():
            call.fail(Cancelled(f"{call.what} was cancelled"))
            return
        error = task.exception()
        if isinstance(error, CadenzaError):
            call.fail(error)
        elif error is not None:
            log.error("a call of %s failed", call.what, exc_info=error)
            call.fail(Internal(f"the kernel failed in a call of {call.what}; its log says how"))
        elif call.task is not None:
            self._keep(call, task.result())

    def _keep(self, call: Call[A], answer: A) -> None:
        user = call.user
        if user.held + answer.size > TOOL_BYTES_PER_USER:
            call.fail(LimitExceeded(f"answers of {TOOL_BYTES_PER_USER} bytes are held for this user, the limit; take "
                                    "and close some, then ask again", "tool_bytes_per_user"))
            return
        call.size = answer.size
        user.held += answer.size
        call.succeed(answer)

    def statistics(self) -> dict[str, float]:
        return {"open": self._of_process.total(), "running": self._running,
                "held_bytes": sum(user.held for user in self._users.values())}

    async def close(self) -> None:
        """Idempotent."""
        performer, self._performer = self._performer, None
        if performer is not None:
            await performer.close()


C = TypeVar("C", bound=Call[Any])
