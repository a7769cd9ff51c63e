"""Asynchronous calls live: the bundled model, its tools asleep for as long as they say, beside the virtual clock.

Held-out tasks of the model's own kind (train/jobs.py): several calls that are independent, and chains of them, each
call 30 to 500 ms. The same tasks are done twice by the same program on the same model: on a daemon's kernel in real
time, and on the kernel under the virtual clock, where a token takes what it took live just then. `live_over_virtual`
should be within a tenth of 1: what the simulations of `scripts/bench async` say is what happens.
"""

from __future__ import annotations

import asyncio
import json
import random
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from statistics import mean, median
from typing import Any

from benchmarks.calls.world import upload
from benchmarks.harness import Figures, run
from cadenza.kernel.device.batch import Batch, StepResult
from cadenza.kernel.device.local_link import LocalLink
from cadenza.kernel.device.torch_device import TorchDevice
from cadenza.kernel.kernel import Kernel
from cadenza.kernel.language import Language
from cadenza.kernel.model.directory import resolve_directory
from cadenza.kernel.virtual_clock import simulate
from cadenza.server.boot import Assembly, assemble, boot
from cadenza.server.options import ServeOptions
from train.jobs import Job, Reply
from train.tasks.calls import MULTI_STEP, PARALLEL
from train.world import Split, World

PROGRAM = Path(__file__).parent / "calls" / "live_program.py"
AGENTS = ("one by one", "parallel", "asynchronous")
SHORTEST, LONGEST = 0.03, 0.5
USER = "bench"
Report = dict[str, Any]


class Paced(TorchDevice):
    """Computes, and says that it took what it takes elsewhere: `spoken` seconds a step, `read` for each more token."""

    spoken, read = 0.0, 0.0

    def step(self, batch: Batch) -> StepResult:
        further = len(batch.tokens) - (len(batch.row_starts) - 1)
        return replace(super().step(batch), seconds=self.spoken + self.read * further)


def tasks(count: int) -> list[dict[str, Any]]:
    source = random.Random("live")
    return [task_of(plan.job(World(source, Split.HELD_OUT, 12)), source)
            for plan in (PARALLEL, MULTI_STEP) for _ in range(count)]


def task_of(job: Job, source: random.Random) -> dict[str, Any]:
    functions = {function.noun: function.name for function in job.functions}
    replies = {noun: Reply(reply.value, source.uniform(SHORTEST, LONGEST)) for noun, reply in job.replies.items()}
    return {"declared": job.declared("").removeprefix(": "), "user": job.asked,
            "tools": [[functions[noun], reply.seconds, reply.value] for noun, reply in replies.items()]}


async def reports(kernel: Kernel, agent: str, given: Sequence[dict[str, Any]]) -> list[Report]:
    process = kernel.spawn(USER, "live", json.dumps({"agent": agent, "tasks": list(given)}))
    status = await process.ended()
    said = "".join(event.text for event in process.output.read(0)[0])
    if status.ending != "finished":
        raise RuntimeError(f"{status.ending}: {status.message}\n{said}")
    return [json.loads(line) for line in said.splitlines()]


async def live(given: Sequence[dict[str, Any]]) -> dict[str, list[Report]]:
    """Task by task, the agents in turn, so that they meet the same neighbours."""
    with tempfile.TemporaryDirectory(prefix="cadenza-bench-") as state:
        kernel = await boot(ServeOptions(state=Path(state), threads=1))
        try:
            await kernel.images.add(USER, upload(PROGRAM.read_text()), name="live")
            await reports(kernel, AGENTS[0], given[:1])
            found: dict[str, list[Report]] = {agent: [] for agent in AGENTS}
            for task in given:
                for agent in AGENTS:
                    found[agent] += await reports(kernel, agent, [task])
            return found
        finally:
            await kernel.close()


async def virtual(given: Sequence[dict[str, Any]], paces: dict[str, list[Report]]) -> dict[str, list[Report]]:
    """At the pace that each had live."""
    model = resolve_directory(ServeOptions().model)
    device = Paced(model, pages=1024, threads=1)
    with tempfile.TemporaryDirectory(prefix="cadenza-bench-") as state:
        kernel = await assemble(LocalLink(device), Language.from_directory(model), Assembly(Path(state)))
        try:
            await kernel.images.add(USER, upload(PROGRAM.read_text()), name="live")
            found: dict[str, list[Report]] = {agent: [] for agent in AGENTS}
            for number, task in enumerate(given):
                for agent in AGENTS:
                    pace = paces[agent][number]["pace"]
                    device.spoken, device.read = (mean(each) for each in zip(*pace, strict=True))
                    found[agent] += await reports(kernel, agent, [task])
            return found
        finally:
            await kernel.close()


def compare(agent: str, real: list[Report], simulated: list[Report]) -> Figures:
    """Prints a line; keys by the agent's name."""
    name = agent.replace(" ", "_")
    seconds, expected = (sum(report["seconds"] for report in reports) for reports in (real, simulated))
    same = mean(a["calls"] == b["calls"] for a, b in zip(real, simulated, strict=True))
    pace = median(report["pace"][0][0] for report in real)
    print(f"{agent:14} {seconds:6.2f} s live, {expected:6.2f} s by the virtual clock, {seconds / expected:.3f}; "
          f"a token {pace * 1000:.1f} ms; the same calls in the same order {same:.0%}", flush=True)
    return {f"live_over_virtual_{name}": seconds / expected, f"live_seconds_{name}": seconds}


async def measure(quick: bool) -> Figures:
    given = tasks(2 if quick else 6)
    real = await live(given)
    simulated = await asyncio.to_thread(simulate, virtual(given, real))
    figures: Figures = {}
    for agent in AGENTS:
        figures |= compare(agent, real[agent], simulated[agent])
    by_agent = [figures[f"live_seconds_{agent.replace(' ', '_')}"] for agent in AGENTS]
    return figures | {"live_vs_one_by_one": by_agent[0] / by_agent[2], "live_vs_parallel": by_agent[1] / by_agent[2]}


if __name__ == "__main__":
    run(__doc__, measure)
