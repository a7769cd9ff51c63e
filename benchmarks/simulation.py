"""The kernel under a virtual clock: its own engine, pager, policies and files, over a device that costs what it is
told, and programs that are coroutines in place of Wasm guests. The same seed gives the same run, to the last digit.

Waste is memory x time that did not serve: frames of programs that wait while somebody else waits for frames (keeping),
frames of programs while what they lost is computed again, and of everybody by how much longer a step is for it
(recomputing), frames of programs while their pages come back (swapping).
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from cadenza.kernel.batcher import BatchPolicy, WorkConserving
from cadenza.kernel.device.batch import Batch, Int32
from cadenza.kernel.device.local_link import LocalLink
from cadenza.kernel.device.null_device import CostModel, NullDevice
from cadenza.kernel.engine import Engine
from cadenza.kernel.handles import Waitable
from cadenza.kernel.inference import Inference
from cadenza.kernel.limits import STEP_ROWS, STEP_TOKENS, ProcessLimits
from cadenza.kernel.memory.policy import MemoryPolicy
from cadenza.kernel.pager import Pager
from cadenza.kernel.process import Process
from cadenza.kernel.profile import profile
from cadenza.kernel.sampler import Sampler
from cadenza.kernel.waits import Intent
from cadenza.kvfs.directory import FileSystem
from cadenza.kvfs.file import File
from cadenza.kvfs.pool import ABSENT, PagePool
from cadenza.kvfs.tiers import Tiers

PAGE_TOKENS = 16
VOCABULARY = 32_000
NONE = np.zeros(0, np.int32)
UNLIMITED = ProcessLimits(wall_seconds=1e9, kv_pages=1 << 30)
# A model of 6B parameters on an A100, as InferCept (arXiv 2402.01869) measured it.
SIX_B = CostModel(fixed_ms=10.0, per_token_ms=0.0463, saturation_tokens=384, per_moved_page_ms=0.04 * PAGE_TOKENS,
                  overlapped=True)  # fmt: skip


@dataclass(slots=True)
class Waste:
    """Pages x seconds, in all and wasted; `idle`: frames of programs that wait, whether anybody wants them or not."""

    capacity: float = 0.0
    keeping: float = 0.0
    recomputing: float = 0.0
    swapping: float = 0.0
    idle: float = 0.0

    def percent(self, part: str) -> float:
        return 100 * float(getattr(self, part)) / self.capacity if self.capacity else 0.0

    @property
    def wasted_percent(self) -> float:
        return self.percent("keeping") + self.percent("recomputing") + self.percent("swapping")


class Meter(LocalLink):
    """A link that notes, step by step, what memory is used for until the next."""

    def __init__(self, device: NullDevice, cost: CostModel) -> None:
        super().__init__(device)
        self.waste = Waste()
        self.engine: Engine | None = None
        self.steps = 0
        self._cost = cost
        self._last = 0.0
        self._recomputed = 0
        self._state = (0, 0, 0, 0)

    def submit(self, batch: Batch) -> None:
        if self.engine is not None:
            self._note(self.engine, batch)
        super().submit(batch)

    def _note(self, engine: Engine, batch: Batch) -> None:
        """The time since the last step goes to the state that it left."""
        now = asyncio.get_running_loop().time()
        passed, self._last = now - self._last, now
        waste, pool = self.waste, engine.pager.pool
        keeping, recomputing, swapping, idle = self._state
        waste.capacity += pool.total * passed
        waste.keeping += keeping * passed
        waste.recomputing += recomputing * passed
        waste.swapping += swapping * passed
        waste.idle += idle * passed
        self.steps += 1
        again, self._recomputed = engine.tokens_recomputed - self._recomputed, engine.tokens_recomputed
        if again:
            beyond = max(0, len(batch.tokens) - self._cost.saturation_tokens)
            waste.recomputing += pool.used * min(again, beyond) * self._cost.per_token_ms / 1000
        self._state = self._look(engine)

    def _look(self, engine: Engine) -> tuple[int, int, int, int]:
        frames, recomputing, swapping = engine.pager.pool.frames, 0, 0
        for work in engine.admission.in_hand:
            if work.missing or not work.present:
                here = int((frames[work.file.table.pages()] != ABSENT).sum())
                recomputing += here if work.missing else 0
                swapping += 0 if work.missing else here
        pages = [waiting.pages for waiting in engine.waits.waiting.values() if waiting.pages is not None]
        held = np.zeros(len(frames), np.bool_)
        for some in pages:
            held[some] = True
        idle = int((held & (frames != ABSENT)).sum())
        starved = any(not work.admitted for work in engine._work)
        return idle if starved else 0, recomputing, swapping, idle


class Simulation:
    """One kernel. Made inside `simulate`; `start` profiles the device first, as the daemon does."""

    def __init__(self, policy: MemoryPolicy, *, kv_tokens: int, host_tokens: int, cost: CostModel = SIX_B,
                 run_ahead: int = 2, batching: BatchPolicy | None = None) -> None:  # fmt: skip
        pages, host = kv_tokens // PAGE_TOKENS, host_tokens // PAGE_TOKENS
        self.link = Meter(NullDevice(pages=pages, page_tokens=PAGE_TOKENS, host_pages=host, cost=cost,
                                     vocabulary_size=VOCABULARY), cost)  # fmt: skip
        self.files = FileSystem(PagePool(pages, PAGE_TOKENS))
        self._policy, self._run_ahead = policy, run_ahead
        self._batching = batching
        self._pids = 0

    async def start(self) -> None:
        costs = await profile(self.link)
        pager = Pager(self.files, Tiers(self.files.pool, self.link.facts.host_pages))
        batching = self._batching or WorkConserving(STEP_TOKENS, STEP_ROWS, costs.beside_decodes)
        self.engine = Engine(self.link, batching, pager, memory=self._policy, costs=costs,
                             run_ahead=self._run_ahead)  # fmt: skip
        self.inference = Inference(self.engine, self.link.facts)
        self.link.engine = self.engine

    def spawn(self, owner: str = "trace") -> Process:
        self._pids += 1
        no_image: Any = None
        return Process(self._pids, owner, no_image, "{}", UNLIMITED, close_file=self.files.close,
                       waits=self.engine.waits, on_ready=lambda p: None, on_end=lambda p: None)  # fmt: skip

    def file(self, process: Process) -> File:
        file = self.files.create(process.owner)
        process.files.add(file)
        return file

    async def decode(
        self, process: Process, file: File, tokens: Sequence[int] | Int32, count: int
    ) -> tuple[int, float]:
        """The last token of `count`, and when the first of them was there."""
        run = self.inference.decode(process, file, [], np.asarray(tokens, np.int32), NONE, sampler=Sampler(), mask=None,
                                    max_tokens=count, stop_tokens=frozenset(), stop_sequences=(), deliver_every=1)
        loop = asyncio.get_running_loop()
        first, last, finish = 0.0, 0, "running"
        while finish == "running":
            await ready(run)
            progress = run.take()
            first, last, finish = first or loop.time(), progress.tokens[-1], progress.finish
        return last, first

    async def call(self, process: Process, tool: str, seconds: float, expected: float | None = None) -> None:
        """A tool that takes `seconds`; `expected`: what the program says."""
        process.waits.begin(process, [Intent(1, tool, expected)], every=False)
        await asyncio.sleep(seconds)
        process.waits.end(process, [1])


class _Watcher:
    """What `Waitable.watcher` calls."""

    def __init__(self, future: asyncio.Future[None]) -> None:
        self._future = future

    def notice(self) -> None:
        if not self._future.done():
            self._future.set_result(None)


async def ready(run: Waitable) -> None:
    """Returns when there is something to take."""
    if not run.ready:
        future = asyncio.get_running_loop().create_future()
        watcher: Any = _Watcher(future)
        run.watcher = watcher
        await future
        run.watcher = None
