"""The kernel as its callers see it: processes by pid, images, files, messages, and the model they all share."""

from __future__ import annotations

import asyncio
import json
import logging
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import asdict, dataclass

from cadenza.kernel.activity import Activity, Load, activity_of, load_of
from cadenza.kernel.adapters import Adapters
from cadenza.kernel.channels import Exchange
from cadenza.kernel.engine import Engine
from cadenza.kernel.grammar.compiler import Grammars
from cadenza.kernel.images import Executable, Image, ImageStore
from cadenza.kernel.inference import Inference
from cadenza.kernel.language import Language
from cadenza.kernel.limits import (
    ARGUMENTS_BYTES,
    ENDED_PROCESSES,
    IDLE_SECONDS,
    PRIORITY_LEAST,
    PRIORITY_MOST,
    PROCESSES,
    PROCESSES_PER_USER,
    TERMINATE_SECONDS,
    ProcessLimits,
)
from cadenza.kernel.locks import Locks
from cadenza.kernel.process import SIGNALS, Process
from cadenza.kernel.process_scheduler import ProcessScheduler
from cadenza.kernel.storage import Storage, Sync
from cadenza.kernel.tools import Tools
from cadenza.kernel.wasm.runtime import WasmRuntime
from cadenza.kvfs.directory import FileSystem
from cadenza.kvfs.errors import CadenzaError, Closed, Full, Invalid, LimitExceeded, NotFound, Unsupported
from cadenza.kvfs.file import File

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class KernelFacts:
    """What a person wants to know at boot. `kv_tokens` is pages × page_tokens."""

    model: str
    fingerprint: str
    device: str
    pages: int
    page_tokens: int
    context_tokens: int
    kv_tokens: int


class Kernel:
    """Wired by server/boot.py. Lives on one event loop; every method is called on it.

    The Wasm runtime serves system calls, which need the kernel: so it is made after it, and given to it by `mount`.
    """

    runtime: WasmRuntime
    images: ImageStore

    def __init__(
        self, *, engine: Engine, files: FileSystem, language: Language, limits: ProcessLimits,
        storage: Storage | None = None, tools: Tools | None = None,
    ) -> None:
        self.engine = engine
        self.files = files
        self.storage = storage
        self.language = language
        self.limits = limits
        self.scheduler = ProcessScheduler()
        self.exchange = Exchange()
        self.locks = Locks()
        self.tools = tools or Tools()
        self.inference = Inference(engine, engine.link.facts)
        self.grammars = Grammars(language.spelled, engine.link.facts.vocabulary_size)
        self.adapters = Adapters(engine, language.facts.fingerprint)
        device, model = engine.link.facts, language.facts
        self.facts = KernelFacts(model.name, model.fingerprint, device.name, device.pages, device.page_tokens,
                                 device.context_tokens, device.pages * device.page_tokens)
        self._processes: dict[int, Process] = {}
        self._alive: Counter[str] = Counter()
        self._ended: deque[int] = deque()
        self._next_pid = 1
        self._starting: set[asyncio.Task[None]] = set()
        self._closing = False
        self._recount_timer: asyncio.TimerHandle | None = None
        engine.idle = self._recount_when_idle

    def mount(self, runtime: WasmRuntime, images: ImageStore) -> None:
        """Gives it what runs programs, and what keeps them. Once, before the first spawn."""
        self.runtime = runtime
        self.images = images

    # --- processes ---

    def spawn(
        self, owner: str, image: str, arguments: str, *, detached: bool = True, limits: ProcessLimits | None = None,
        priority: int = 0, parent: Process | None = None,
    ) -> Process:
        """Starts an image of `owner`; returns at once. Nobody's priority is above his parent's. Raises NotFound,
        LimitExceeded, Invalid, Closed."""
        check_priority(priority, PRIORITY_MOST if parent is None else parent.priority)
        found = self.images.get(owner, image)
        self._ensure_room(owner, parent)
        check_arguments(arguments)
        process = Process(
            self._next_pid, owner, found, arguments, limits or self.limits, parent=parent, detached=detached,
            priority=priority, account=self.exchange.account(owner), waits=self.engine.waits,
            close_file=self.files.close, on_ready=self.scheduler.make_ready, on_end=self._bury,
        )
        self._next_pid += 1
        self._processes[process.pid] = process
        self._alive[owner] += 1
        if parent is not None:
            parent.children[process.pid] = process
        self._start(process, found)
        return process

    def process(self, owner: str, pid: int) -> Process:
        """Alive, or ended and still remembered. Raises NotFound, for another user's too."""
        process = self._processes.get(pid)
        if process is None or process.owner != owner:
            raise NotFound(f"no process {pid}: `cadenza ps` lists yours")
        return process

    def processes(self, owner: str) -> list[Process]:
        return [p for p in self._processes.values() if p.owner == owner]

    def signal(self, owner: str, pid: int, signal: str) -> None:
        """Raises NotFound, Invalid, or Closed if it has ended."""
        if signal not in SIGNALS:
            raise Invalid(f"no signal {signal!r}: there are {', '.join(SIGNALS)}", "signal")
        self.process(owner, pid).send_signal(signal)

    def forget(self, owner: str, pid: int) -> None:
        """Drops an ended process and its output. Raises NotFound, or Invalid while it lives."""
        process = self.process(owner, pid)
        if process.exit is None:
            raise Invalid(f"process {pid} is alive; end it first", "pid")
        del self._processes[pid]
        self._ended.remove(pid)

    def _ensure_room(self, owner: str, parent: Process | None) -> None:
        if self._closing:
            raise Closed("the daemon is stopping; it starts no more processes")
        if self._alive.total() >= PROCESSES:
            raise LimitExceeded(f"{PROCESSES} processes are alive, the most there may be; try later", "processes")
        if self._alive[owner] >= PROCESSES_PER_USER:
            raise LimitExceeded(f"{PROCESSES_PER_USER} processes of this user are alive, the limit",
                                "processes_per_user")
        if parent is not None and len(parent.children) >= parent.limits.children:
            raise LimitExceeded(f"process {parent.pid} has {parent.limits.children} children, its limit", "children")

    def _start(self, process: Process, image: Image) -> None:
        executable = self.images.ready(image)
        if executable is not None:
            self._give_guest(process, executable)
            return
        task = asyncio.get_running_loop().create_task(self._load_and_start(process, image))
        self._starting.add(task)
        task.add_done_callback(self._starting.discard)

    async def _load_and_start(self, process: Process, image: Image) -> None:
        try:
            executable = await self.images.executable(image)
        except (CadenzaError, OSError) as error:
            process.kill("killed", f"its image could not be loaded: {error}")
            return
        if process.exit is None:
            self._give_guest(process, executable)

    def _give_guest(self, process: Process, executable: Executable) -> None:
        try:
            guest = self.runtime.instantiate(executable.program, process, process.limits, process.wake)
        except CadenzaError as error:
            process.kill("killed", error.message)
            return
        process.attach_guest(guest, executable.payload)

    def _bury(self, process: Process) -> None:
        self.engine.abort(process.pid)
        self._alive[process.owner] -= 1
        if process.parent is not None:
            process.parent.children.pop(process.pid, None)
        if process.pid not in self._processes:
            return
        self._ended.append(process.pid)
        while len(self._ended) > ENDED_PROCESSES:
            self._processes.pop(self._ended.popleft(), None)

    def activity(self, process: Process) -> Activity:
        """What it does right now. Takes time with its handles and its pages."""
        now = asyncio.get_running_loop().time()
        return activity_of(process, self.files.pool, self.engine.pager.tiers, now)

    # --- files ---

    def sync(self, file: File) -> Sync:
        """Ready when `file`, as it is now, is on disk. Raises Unsupported, Invalid for a file without a name, Busy."""
        if self.storage is None:
            raise Unsupported("this daemon keeps no files on disk: start it with --disk-gib above 0")
        return self.storage.sync(file)

    def tiers(self) -> list[tuple[str, int, int]]:
        """Where pages can lie: name, pages, pages used."""
        pool, tiers = self.files.pool, self.engine.pager.tiers
        found = [("device", pool.total, pool.used), ("host", tiers.host_pages, len(tiers.host))]
        if self.storage is not None:
            known = self.storage.store.statistics()
            found.append(("disk", known["disk_limit_pages"], known["disk_pages"]))
        return found

    # --- the whole ---

    def watch_device(self, changed: Callable[[bool], None]) -> None:
        """`changed` is called when the device has gone, and when it is there again."""
        self.engine.recovery.changed = changed

    def load(self) -> Load:
        """What the machine does right now; tells nothing of anybody's programs."""
        return load_of(self.engine, asyncio.get_running_loop().time(), self._alive.total(), self.scheduler.ready())

    def recount(self) -> None:
        """Raises AssertionError unless every KV page is where the books say."""
        self.files.recount()
        self.engine.pager.recount()
        if self.storage is not None:
            self.storage.recount()

    def _recount_when_idle(self) -> None:
        """Once IDLE_SECONDS after the last work has ended, if none has begun since."""
        if self._recount_timer is not None:
            self._recount_timer.cancel()
        self._recount_timer = asyncio.get_running_loop().call_later(IDLE_SECONDS, self._recount_if_idle)

    def _recount_if_idle(self) -> None:
        if not self.engine.busy:
            self.recount()

    def statistics(self) -> dict[str, float]:
        return {
            "processes_alive": self._alive.total(), "processes_ready": self.scheduler.ready(),
            "processes_waiting": sum(p.state == "waiting" for p in self._processes.values()),
            "slices": self.scheduler.slices,
            **{f"engine_{k}": v for k, v in self.engine.statistics().items()},
            **{f"adapters_{k}": v for k, v in self.adapters.statistics().items()},
            **{f"grammars_{k}": v for k, v in self.grammars.statistics().items()},
            **{f"kv_{k}": float(v) for k, v in self.files.statistics().items()},
            **{f"locks_{k}": v for k, v in self.locks.statistics().items()},
            **{f"store_{k}": v for k, v in (self.storage.store.statistics() if self.storage else {}).items()},
            **{f"tools_{k}": v for k, v in self.tools.statistics().items()},
            **{f"channels_{k}": v for k, v in self.exchange.statistics().items()},
            **{f"wasm_{k}": float(v) for k, v in asdict(self.runtime.statistics()).items()},
        }

    async def close(self) -> None:
        """Asks every process to end, waits TERMINATE_SECONDS, ends the rest, and stops the device. Idempotent."""
        self._closing = True
        alive = [p for p in self._processes.values() if p.exit is None]
        for process in alive:
            try:
                process.send_signal("terminate")
            except Full:
                process.kill("killed", "the daemon stopped")
        if alive:
            await asyncio.wait([asyncio.ensure_future(p.ended()) for p in alive], timeout=TERMINATE_SECONDS)
        for process in alive:
            process.kill("killed", "the daemon stopped")
        for task in list(self._starting):
            task.cancel()
        if self._recount_timer is not None:
            self._recount_timer.cancel()
        await self.tools.close()
        await self.grammars.close()
        if self.storage is not None:
            await self.storage.close()
        await self.engine.recovery.close()
        self.engine.link.close()
        self.runtime.close()


def check_priority(priority: int, most: int) -> None:
    """Raises Invalid if it is none at all, LimitExceeded past `most`."""
    if not PRIORITY_LEAST <= priority <= PRIORITY_MOST:
        raise Invalid(f"priority {priority} must be from {PRIORITY_LEAST} to {PRIORITY_MOST}; 0 is usual", "priority")
    if priority > most:
        raise LimitExceeded(f"priority {priority} is too high: {most} at most may be asked for here", "priority")


def check_arguments(arguments: str) -> None:
    """Raises Invalid unless they are a JSON object of at most ARGUMENTS_BYTES."""
    if len(arguments.encode(errors="replace")) > ARGUMENTS_BYTES:
        raise Invalid(f"the arguments have over {ARGUMENTS_BYTES} bytes: send what is long as messages", "arguments")
    try:
        given = json.loads(arguments)
    except (ValueError, RecursionError) as fault:
        raise Invalid(f"the arguments are not JSON: {fault}", "arguments") from None
    if not isinstance(given, dict):
        raise Invalid("the arguments must be a JSON object, as {\"question\": \"…\"}", "arguments")
