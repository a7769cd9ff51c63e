"""The batcher through the real engine, in virtual time: who shares steps with whom, and who waits how long."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterable
from typing import Any

import numpy as np

from cadenza.kernel.batcher import BatchPolicy, Share, WorkConserving
from cadenza.kernel.device.batch import Batch, Int32
from cadenza.kernel.device.local_link import LocalLink
from cadenza.kernel.device.null_device import CostModel, NullDevice
from cadenza.kernel.engine import Engine
from cadenza.kernel.inference import Inference
from cadenza.kernel.limits import STEP_ROWS, STEP_TOKENS, ProcessLimits
from cadenza.kernel.pager import Pager
from cadenza.kernel.passes import Pass, Work
from cadenza.kernel.process import Process
from cadenza.kernel.runs import Run
from cadenza.kernel.sampler import Sampler
from cadenza.kernel.virtual_clock import simulate
from cadenza.kvfs.directory import FileSystem
from cadenza.kvfs.pool import PagePool
from cadenza.kvfs.tiers import Tiers

NONE = np.zeros(0, np.int32)
NO_RANGES = np.zeros((0, 3), np.int32)
COST = CostModel(fixed_ms=10.0, per_token_ms=0.05, saturation_tokens=384)
FULL_STEP_SECONDS = 0.0932


class NotedLink(LocalLink):
    """Remembers when steps were submitted, and their rows and tokens."""

    def __init__(self, device: NullDevice) -> None:
        super().__init__(device)
        self.steps: list[tuple[float, int, int]] = []

    def submit(self, batch: Batch) -> None:
        self.steps.append((asyncio.get_running_loop().time(), len(batch.row_starts) - 1, len(batch.tokens)))
        super().submit(batch)


class Bench:
    """An engine over a device of which steps take 10 ms, and longer beyond 384 tokens."""

    def __init__(self, policy: BatchPolicy | None = None, *, pages: int = 16_384, run_ahead: int = 2) -> None:
        self.link = NotedLink(NullDevice(pages=pages, cost=COST))
        self.files = FileSystem(PagePool(pages, 16))
        pager = Pager(self.files, Tiers(self.files.pool, 0))
        self.engine = Engine(self.link, policy or WorkConserving(STEP_TOKENS, STEP_ROWS, 384), pager,
                             run_ahead=run_ahead)
        self.inference = Inference(self.engine, self.link.facts)
        self.processes: dict[tuple[str, int], Process] = {}

    def process(self, owner: str, priority: int) -> Process:
        nobody: Any = None
        limits = ProcessLimits(kv_pages=1 << 20, descriptors=1 << 20, wall_seconds=1e9)
        return self.processes.setdefault((owner, priority), Process(
            len(self.processes) + 1, owner, nobody, "{}", limits, priority=priority, close_file=self.files.close,
            on_ready=lambda p: None, on_end=lambda p: None))

    def decode(self, owner: str, prompt: int, most: int, priority: int = 0) -> Run:
        file = self.files.create(owner)
        process = self.process(owner, priority)
        process.files.add(file)
        return self.inference.decode(process, file, [], self.prompt(prompt), NONE, sampler=Sampler(), mask=None,
                                     max_tokens=most, stop_tokens=frozenset(), stop_sequences=(), deliver_every=1)

    def forward(self, owner: str, prompt: int, priority: int = 0) -> Pass:
        file = self.files.create(owner)
        process = self.process(owner, priority)
        process.files.add(file)
        return self.inference.forward(process, file, [], self.prompt(prompt), NONE, visible=NO_RANGES, mask=None,
                                      samples=[(prompt - 1, Sampler())], probes=[])

    def prompt(self, count: int) -> Int32:
        first = self.engine.statistics()["work"]
        return (np.arange(count) + int(first) * 7).astype(np.int32) % 997

    def close(self) -> None:
        assert self.engine.statistics()["inputs_waiting"] == sum(w.prefilling for w in self.engine._work)
        for process in self.processes.values():
            process.kill()
            self.engine.abort(process.pid)
        assert self.engine.statistics()["inputs_waiting"] == self.engine.statistics()["users_waiting"] == 0
        self.files.recount()


async def over(*works: Work) -> float:
    """When the last of them is over."""
    while not all(work.over for work in works):
        await asyncio.sleep(0.001)
    return asyncio.get_running_loop().time()


def in_virtual_time(test: Coroutine[Any, Any, None]) -> None:
    simulate(test)


def test_a_policy_that_waits_is_asked_again_when_it_says() -> None:
    class Patient:
        """A step every second."""

        def __init__(self) -> None:
            self.due = 1.0

        def choose(self, work: Iterable[Work], now: float) -> list[Share]:
            if now < self.due:
                return []
            self.due = now + 1.0
            return [(each, each.wanted()) for each in work if each.wanted()]

        def again(self, now: float) -> float | None:
            return self.due

    async def test() -> None:
        bench = Bench(Patient())
        await over(bench.decode("ada", 5, 3))
        assert [when for when, *_ in bench.link.steps] == [1.0, 2.0, 3.0]
        bench.close()
    in_virtual_time(test())


def test_long_prompts_do_not_slow_those_who_decode_nor_keep_short_ones_waiting() -> None:
    async def test() -> None:
        bench = Bench()
        decodes = [bench.decode("ada", 8, 400) for _ in range(100)]
        await asyncio.sleep(0.1)
        before = len(bench.link.steps)
        longs = [bench.forward("burst", 4000) for _ in range(10)]
        await asyncio.sleep(0.2)
        asked_at = asyncio.get_running_loop().time()
        assert await over(bench.forward("bob", 100)) - asked_at <= 0.041
        ended = await over(*longs)
        steps = [step for step in bench.link.steps[before + 2 :] if step[0] < ended - 0.02]
        assert max(tokens for *_, tokens in steps) == 384
        assert not any(work.over for work in decodes)
        bench.close()
    in_virtual_time(test())


def test_a_user_of_many_prompts_does_not_keep_another_s_one_waiting() -> None:
    async def test() -> None:
        bench = Bench()
        many = [bench.forward("many", 1000) for _ in range(100)]
        await asyncio.sleep(0.5)
        asked_at = asyncio.get_running_loop().time()
        lone = await over(bench.forward("one", 4000)) - asked_at
        assert not all(work.over for work in many)
        assert lone <= 8 * FULL_STEP_SECONDS            # alone it would take 2 of them, behind the others 40
        bench.close()
    in_virtual_time(test())


def test_programs_that_ask_token_by_token_stay_together() -> None:
    async def test() -> None:
        bench = Bench()

        async def program(number: int) -> None:
            await asyncio.sleep(number * 0.0001)
            for _ in range(20):
                await over(bench.forward("ada", 3))

        await asyncio.gather(*(program(number) for number in range(50)))
        assert len(bench.link.steps) <= 2 * 20 + 4
        bench.close()
    in_virtual_time(test())


def test_what_runs_on_by_itself_is_submitted_ahead_as_ever() -> None:
    async def test() -> None:
        bench = Bench(run_ahead=3)
        runs = [bench.decode("ada", 4, 50) for _ in range(4)]
        ended = await over(*runs)
        assert bench.engine.steps_done == 50
        assert ended <= 50 * 0.01 + 0.001
        assert [when for when, *_ in bench.link.steps[:3]] == [0.0, 0.0, 0.0]
        bench.close()
    in_virtual_time(test())


def test_lines_are_kept_when_work_is_preempted_aborted_and_over() -> None:
    async def test() -> None:
        bench = Bench(pages=40)
        runs = [bench.decode(f"user {n % 3}", 20, 200) for n in range(8)]
        await asyncio.sleep(1.0)
        assert bench.engine.preemptions > 0
        assert bench.engine.statistics()["inputs_waiting"] == sum(run.in_line for run in runs)
        assert all(run.in_line == (run.prefilling and not run.over) for run in runs)
        bench.close()
    in_virtual_time(test())

