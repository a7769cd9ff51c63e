"""A process: one running image, what it holds, what it may use, and how it ended.

    ready ──▶ running ──▶ waiting ──▶ ready …        whatever ends it ──▶ ended, and everything is given back
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cadenza.kernel.channels import Account, Mailbox
from cadenza.kernel.descriptors import Descriptors
from cadenza.kernel.handles import HandleTable, Outcome, Waitable
from cadenza.kernel.limits import QUEUE_MESSAGES, ProcessLimits
from cadenza.kernel.output import OutputLog
from cadenza.kernel.trace import Trace
from cadenza.kernel.waits import Waits
from cadenza.kernel.wasm.seams import Advance, ExitGuest
from cadenza.kernel.wasm.seams import Outcome as GuestOutcome
from cadenza.kvfs.errors import Closed, Full, LimitExceeded

if TYPE_CHECKING:
    from cadenza.kernel.images import Image, Payload
    from cadenza.kernel.wasm.guest import Guest
    from cadenza.kvfs.file import File

# Exit codes of the endings that are not the program's own choice: 128 + the Unix signal that comes nearest.
EXIT_CODES = {"finished": 0, "failed": 1, "trapped": 134, "killed": 137, "memory-limit": 137, "wall-limit": 142,
              "cpu-limit": 152, "output-limit": 153}
SIGNALS = ("terminate", "kill", "interrupt", "user")


@dataclass(frozen=True, slots=True)
class ExitStatus:
    """`ending` is a case of WIT's `process.ending`; `code` is 0 only for `finished`, and `exited` with 0."""

    ending: str
    code: int
    message: str = ""


class Signals(Waitable):
    """Signals that a process has asked to see for itself. Until `opened`, terminate and interrupt end it."""

    __slots__ = ("_pending", "opened")
    what = "signal"

    def __init__(self) -> None:
        super().__init__()
        self._pending: deque[str] = deque()
        self.opened = False

    def put(self, signal: str) -> None:
        """Raises Full when too many wait."""
        if len(self._pending) >= QUEUE_MESSAGES:
            raise Full(f"{QUEUE_MESSAGES} signals wait for this process already", "queue_messages")
        self._pending.append(signal)
        self.signal()

    def take(self) -> str | None:
        signal = self._pending.popleft() if self._pending else None
        if not self._pending:
            self.unsignal()
        return signal


class EndWatcher(Outcome[ExitStatus]):
    """Waits for a process to end; takes itself off its list when it is closed before."""

    __slots__ = ("_watchers",)
    what = "child"

    def __init__(self, watchers: set[EndWatcher]) -> None:
        super().__init__()
        self._watchers = watchers

    def close(self) -> None:
        self._watchers.discard(self)


class Process:
    """Made by `Kernel.spawn`; `attach_guest` gives it its program. `on_ready` queues it, `on_end` buries it."""

    # A thousand take turns (see Fiber).
    __slots__ = ("__weakref__", "_clock", "_ended", "_guest", "_on_end", "_on_ready", "_wall",
                 "_watchers", "arguments", "children", "detached", "ended_at", "exit", "files",
                 "handles", "image", "inbox", "limits", "output", "owner", "parent", "payload", "pid",
                 "place", "priority", "signals", "since", "started_at", "state", "tokens", "trace",
                 "waits")

    def __init__(
        self,
        pid: int,
        owner: str,
        image: Image,
        arguments: str,
        limits: ProcessLimits,
        *,
        parent: Process | None = None,
        detached: bool = True,
        priority: int = 0,
        account: Account | None = None,
        waits: Waits | None = None,
        close_file: Callable[[File], None],
        on_ready: Callable[[Process], None],
        on_end: Callable[[Process], None],
    ) -> None:
        self.pid = pid
        self.owner = owner
        self.image = image
        self.arguments = arguments
        self.limits = limits
        self.parent = parent
        self.detached = detached
        self.priority = priority
        self.state = "ready"
        self.started_at = time.time()
        self.ended_at: float | None = None
        self.exit: ExitStatus | None = None
        self.output = OutputLog()
        self.inbox = Mailbox(account or Account())
        self.signals = Signals()
        self.handles = HandleTable(limits.handles)
        self.files = Descriptors(limits.descriptors, close_file, owner)
        self.children: dict[int, Process] = {}
        self.payload: Payload = []
        self.place = 0                       # in line, for the device; 0: at the end
        self.waits = waits or Waits()
        self.tokens = 0                      # sampled for it, and taken
        self._clock = asyncio.get_running_loop().time
        self.since = self._clock()           # when it last ran
        self.trace = Trace(self._clock)
        self._on_ready = on_ready
        self._on_end = on_end
        self._guest: Guest | None = None
        self._watchers: set[EndWatcher] = set()
        self._ended = asyncio.Event()
        self._wall = asyncio.get_running_loop().call_later(limits.wall_seconds, self._out_of_time)

    def __repr__(self) -> str:
        return f"<Process {self.pid} of {self.owner}, {self.state}>"

    @property
    def waiting_for(self) -> str:
        """What it says that it waits for: names of tools, for people to read."""
        waiting = self.waits.waiting.get(self)
        return str(waiting) if waiting is not None else ""

    # --- running ---

    def attach_guest(self, guest: Guest, payload: Payload) -> None:
        self._guest = guest
        self.payload = payload
        self._on_ready(self)

    def wake(self) -> None:
        """What it was blocked on is there."""
        if self.exit is None:
            self.state = "ready"
            self._on_ready(self)

    def advance(self) -> Advance:
        """Runs one slice. An ended process does nothing: it may still stand in a queue."""
        if self.exit is not None or self._guest is None:
            return Advance.ENDED
        self.state = "running"
        how = self._guest.advance()
        self.since = self._clock()
        if self._guest is None:              # a call of its own has ended it: by ending its parent, say
            return Advance.ENDED
        if how is Advance.ENDED:
            outcome = self._guest.outcome
            assert outcome is not None, f"{self!r} ended without an outcome"
            self._end(outcome)
        else:
            self.state = "waiting" if how is Advance.BLOCKED else "ready"
        return how

    # --- ending ---

    def kill(self, ending: str = "killed", message: str = "") -> None:
        """Ends it from outside, wherever it is. Idempotent."""
        if self.exit is None:
            self._end(GuestOutcome(ending, EXIT_CODES[ending], message))

    def send_signal(self, signal: str) -> None:
        """Delivers it, or ends the process: `kill` always, `terminate` and `interrupt` unless it opened its signals."""
        if self.exit is not None:
            raise Closed(f"process {self.pid} has ended already")
        if signal == "kill" or (signal != "user" and not self.signals.opened):
            self.kill("killed", f"ended by signal {signal!r}")
        else:
            self.signals.put(signal)

    async def ended(self) -> ExitStatus:
        await self._ended.wait()
        assert self.exit is not None
        return self.exit

    def watch_end(self) -> EndWatcher:
        """A waitable that succeeds with the exit status."""
        watcher = EndWatcher(self._watchers)
        if self.exit is not None:
            watcher.succeed(self.exit)
        else:
            self._watchers.add(watcher)
        return watcher

    def _out_of_time(self) -> None:
        self.kill("wall-limit", f"ran for {self.limits.wall_seconds:g} s, its limit (wall_seconds)")

    def _end(self, outcome: GuestOutcome) -> None:
        if outcome.ending == "failed" and self.payload and outcome.message.startswith("MemoryError"):
            outcome = GuestOutcome("memory-limit", 1, f"needed more than its {self.limits.memory_bytes} bytes "
                                                      f"(memory_bytes): {outcome.message}")
        code = outcome.code if outcome.ending == "exited" else EXIT_CODES[outcome.ending]
        self.exit = ExitStatus(outcome.ending, code, outcome.message)
        self.state = "ended"
        self.ended_at = time.time()
        self._wall.cancel()
        self._release()
        while self._watchers:
            self._watchers.pop().succeed(self.exit)
        self.output.close()
        self.trace.close()
        self._ended.set()
        self._on_end(self)

    def _release(self) -> None:
        """Handles before files: what a handle stands for may be writing to a file."""
        if self._guest is not None:
            self._guest.close()
            self._guest = None
        self.waits.forget(self)
        self.handles.close_all()
        self.inbox.drop()
        self.files.close_all()
        for child in list(self.children.values()):
            child.parent = None              # or a chain of them would keep every ancestor
            if not child.detached:
                child.kill("killed", f"its parent, process {self.pid}, has ended")
        self.children.clear()

    def allow_pages(self, count: int) -> None:
        """Raises LimitExceeded if `count` KV pages more are too many for this process."""
        held, limit = self.files.pages(), self.limits.kv_pages
        if held + count > limit:
            raise LimitExceeded(f"process {self.pid} holds {held} KV pages and needs {count} more; its limit is "
                                f"{limit} (kv_pages): close or truncate files", "kv_pages")

    # --- talking ---

    def write(self, kind: str, text: str) -> None:
        """Output of the program. One byte past its limit ends it: raises ExitGuest."""
        size = len(text.encode(errors="replace"))
        limit = self.limits.output_bytes
        if self.output.total_bytes + size > limit:
            raise ExitGuest(GuestOutcome("output-limit", 0, f"wrote more than {limit} bytes, its limit (output_bytes)"))
        self.output.write(kind, text)

    def deliver(self, text: str) -> None:
        """A message of the client. Raises Full, or Closed after the end."""
        if self.exit is not None:
            raise Closed(f"process {self.pid} has ended; nobody will read the message")
        self.inbox.put(text)

    def usage(self) -> dict[str, int]:
        return {
            "files": len(self.files), "kv_pages": self.files.pages(), "kv_tokens": sum(len(f) for f in set(self.files)),
            "handles": len(self.handles), "children": len(self.children), "output_bytes": self.output.total_bytes,
        }
