"""A kernel that runs nothing: the seam that the services see, for tests of the services alone.

An image is its bytes. A process follows the words of its arguments: {"say": […], "code": 0, "hang": true, "marks":
[[kind, track, text], …]}; each message that is delivered to it comes back as a message, "stop" ends it.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from types import SimpleNamespace

from cadenza.kernel.activity import Activity, Load, PageCount
from cadenza.kernel.limits import ProcessLimits
from cadenza.kernel.manifest import Manifest
from cadenza.kernel.output import OutputLog
from cadenza.kernel.trace import Trace
from cadenza.kvfs.errors import Closed, Full, Invalid, NotFound


@dataclass(frozen=True)
class FakeExit:
    ending: str
    code: int
    message: str = ""


@dataclass(frozen=True)
class FakeImage:
    digest: str
    name: str
    kind: str
    owner: str
    size_bytes: int
    created_at: float
    manifest: Manifest = field(default_factory=Manifest)


@dataclass(frozen=True)
class FakeFacts:
    model: str = "fake"
    fingerprint: str = "f00d"
    device: str = "none"
    pages: int = 64
    page_tokens: int = 16
    context_tokens: int = 512
    kv_tokens: int = 1024


class FakeImages:
    def __init__(self) -> None:
        self.kept: dict[tuple[str, str], FakeImage] = {}
        self.added = 0
        self.waiting = 0
        self.fault: Exception | None = None
        self.slow = asyncio.Event()         # cleared by a test that wants `add` to take for ever
        self.slow.set()

    async def add(self, owner: str, data: bytes, *, name: str = "", kind: str = "") -> FakeImage:
        self.waiting += 1
        try:
            await self.slow.wait()
        finally:
            self.waiting -= 1
        self.added += 1
        if self.fault is not None:
            raise self.fault
        if data.startswith(b"def ("):
            raise Invalid("agent.py, line 1: invalid syntax", "data")
        if data == b"bug":
            raise ZeroDivisionError("a secret")
        digest = hashlib.sha256(data).hexdigest()
        image = FakeImage(digest, name, kind or "python", owner, len(data), time.time())
        self.kept[owner, digest] = image
        return image

    def get(self, owner: str, reference: str) -> FakeImage:
        for image in self.list(owner):
            if image.name == reference or (len(reference) >= 8 and image.digest.startswith(reference)):
                return image
        raise NotFound(f"no image {reference!r}; 'cadenza images' lists yours")

    def list(self, owner: str) -> list[FakeImage]:
        return [image for image in self.kept.values() if image.owner == owner]

    def delete(self, owner: str, reference: str) -> None:
        image = self.get(owner, reference)
        del self.kept[(owner, image.digest)]


@dataclass(eq=False)
class FakeProcess:
    pid: int
    owner: str
    image: FakeImage
    arguments: str
    limits: ProcessLimits
    detached: bool
    state: str = "running"
    started_at: float = field(default_factory=time.time)
    ended_at: float | None = None
    exit: FakeExit | None = None
    output: OutputLog = field(default_factory=lambda: OutputLog(4096))
    signals: list[str] = field(default_factory=list)
    waiting: int = 0
    since: float = 0.0
    priority: int = 0
    handles: tuple[()] = ()
    trace: Trace = field(default_factory=lambda: Trace(time.monotonic))
    over: asyncio.Event = field(default_factory=asyncio.Event)

    def usage(self) -> dict[str, int]:
        return {"output_bytes": self.output.total_bytes}

    async def ended(self) -> FakeExit:
        self.waiting += 1
        try:
            await self.over.wait()
        finally:
            self.waiting -= 1
        assert self.exit is not None
        return self.exit

    def deliver(self, text: str) -> None:
        if self.exit is not None:
            raise Closed(f"process {self.pid} has ended")
        if text == "full":
            raise Full("1024 messages wait already", "queue_messages")
        self.output.write("message", f"echo {text}")
        if text == "stop":
            self.end(FakeExit("finished", 0))

    def kill(self, ending: str, message: str) -> None:
        self.end(FakeExit(ending, 137, message))

    def end(self, status: FakeExit) -> None:
        self.exit, self.state, self.ended_at = status, "ended", time.time()
        self.output.close()
        self.trace.close()
        self.over.set()


class FakeKernel:
    adapters = None                          # test_adapters.py has a kernel with adapters
    files = None                             # test_files.py has a kernel with files

    def __init__(self) -> None:
        self.images = FakeImages()
        self.facts = FakeFacts()
        self.limits = ProcessLimits()
        self.table: dict[int, FakeProcess] = {}
        self.engine = SimpleNamespace(link=SimpleNamespace(facts=SimpleNamespace(page_bytes=1024)))
        self.looks = 0
        self.device_changed: Callable[[bool], None] = lambda there: None

    def spawn(
        self, owner: str, image: str, arguments: str, *, detached: bool = True, limits: ProcessLimits | None = None,
        priority: int = 0,
    ) -> FakeProcess:
        wishes = json.loads(arguments)
        process = FakeProcess(
            max(self.table, default=0) + 1, owner, self.images.get(owner, image), arguments,
            limits or ProcessLimits(), detached, priority=priority,
        )
        self.table[process.pid] = process
        for kind, track, text in wishes.get("marks", ()):
            process.trace.mark(kind, track, text)
        for line in wishes.get("say", ()):
            process.output.write("output", line)
        if not wishes.get("hang"):
            process.end(FakeExit("exited" if wishes.get("code") else "finished", wishes.get("code", 0)))
        return process

    def watch_device(self, changed: Callable[[bool], None]) -> None:
        self.device_changed = changed

    def process(self, owner: str, pid: int) -> FakeProcess:
        process = self.table.get(pid)
        if process is None or process.owner != owner:
            raise NotFound(f"no process {pid}; 'cadenza ps' lists yours")
        return process

    def processes(self, owner: str) -> list[FakeProcess]:
        return [process for process in self.table.values() if process.owner == owner]

    def forget(self, owner: str, pid: int) -> None:
        if self.process(owner, pid).exit is None:
            raise Invalid(f"process {pid} is alive; end it first", "pid")
        del self.table[pid]

    def signal(self, owner: str, pid: int, signal: str) -> None:
        process = self.process(owner, pid)
        process.signals.append(signal)
        if process.exit is None and (signal == "kill" or "stubborn" not in process.arguments):
            process.end(FakeExit("killed", 137, f"signal {signal}"))

    def activity(self, process: FakeProcess) -> Activity:
        """Ten tokens more at each look."""
        return Activity("waiting", "search", 1.5, 10 * self.looks, PageCount(device=3, host=2, shared=1))

    def load(self) -> Load:
        """Two seconds, and as much work in them, later at each look."""
        self.looks = n = self.looks + 1
        return Load(2.0 * n, 1.0 * n, 4 * n, 48 * n, 40 * n, 20 * n, 0, 5, 6, 3, 2, 1, len(self.table), 2)

    def tiers(self) -> list[tuple[str, int, int]]:
        return [("device", 64, 16), ("host", 32, 0)]

    def statistics(self) -> dict[str, float]:
        return {"processes": float(len(self.table)), "kv_pages_free": 64.0}

    async def close(self) -> None:
        for signal in ("terminate", "kill"):
            for process in self.table.values():
                if process.exit is None:
                    self.signal(process.owner, process.pid, signal)
