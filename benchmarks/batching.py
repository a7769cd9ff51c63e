"""Which passes share a step: the kernel's batcher beside three others, and beside itself in a burst of long prompts.

The kernel runs under a virtual clock (simulation.py), on a device with the constants of a 6B model on an A100: 10 ms a
step, 0.0463 ms a token beyond 384. So figures do not depend on the machine. 128 programs come within a second; each
prefills a prompt and decodes an answer, in a run that the kernel continues by itself, or token by token: a pass each,
and a little time of its own in between.
"""

from __future__ import annotations

import asyncio
import random
import statistics
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np

from benchmarks.batch_policies import CountOnly, Eager, TimeOnly
from benchmarks.harness import Figures, run
from benchmarks.simulation import NONE, SIX_B, VOCABULARY, Simulation, ready
from cadenza.kernel.batcher import BatchPolicy, WorkConserving
from cadenza.kernel.device.batch import Int32
from cadenza.kernel.limits import STEP_ROWS, STEP_TOKENS
from cadenza.kernel.memory.foresight import Foresight
from cadenza.kernel.process import Process
from cadenza.kernel.sampler import Sampler
from cadenza.kernel.virtual_clock import simulate

PROGRAMS = 128
OURS = "work-conserving"
NO_RANGES = np.zeros((0, 3), np.int32)
THINKING_SECONDS = 0.001              # on average, between two passes of a program that asks token by token
LONG_PROMPTS, LONG_TOKENS = 16, 8000
SHORTS_A_SECOND = 8.0
KV_TOKENS = 640_000


def work_conserving() -> BatchPolicy:
    return WorkConserving(STEP_TOKENS, STEP_ROWS, SIX_B.saturation_tokens)


POLICIES: dict[str, Callable[[], BatchPolicy]] = {
    "eager": lambda: Eager(STEP_TOKENS),
    "K-only (8)": lambda: CountOnly(STEP_TOKENS, 8),
    "T-only (16 ms)": lambda: TimeOnly(STEP_TOKENS, STEP_ROWS, 0.016),
    OURS: work_conserving,
}


@dataclass(slots=True)
class Told:
    """What programs saw: seconds to the first token, between tokens, and in all."""

    firsts: list[float] = field(default_factory=list)
    betweens: list[float] = field(default_factory=list)
    wholes: list[float] = field(default_factory=list)
    tokens: int = 0
    ended_at: float = 0.0

    def add(self, came: float, times: list[float]) -> None:
        self.firsts.append(times[0] - came)
        self.betweens += [after - before for before, after in pairwise(times)]
        self.wholes.append(times[-1] - came)
        self.tokens += len(times)
        self.ended_at = max(self.ended_at, times[-1])


def percentile(values: list[float], percent: int) -> float:
    return statistics.quantiles(values, n=100, method="inclusive")[percent - 1]


def prompt(chosen: random.Random, count: int) -> Int32:
    return np.array([chosen.randrange(VOCABULARY) for _ in range(count)], np.int32)


async def decode(bench: Simulation, process: Process, tokens: Int32, count: int) -> list[float]:
    """When each of `count` tokens of a run was there."""
    loop = asyncio.get_running_loop()
    times: list[float] = []
    work = bench.inference.decode(process, bench.file(process), [], tokens, NONE, sampler=Sampler(), mask=None,
                                  max_tokens=count, stop_tokens=frozenset(), stop_sequences=(), deliver_every=1)
    while len(times) < count:
        await ready(work)
        times += [loop.time()] * len(work.take().tokens)
    return times


async def ask(bench: Simulation, process: Process, tokens: Int32, count: int, chosen: random.Random) -> list[float]:
    """Likewise of tokens asked for one by one."""
    loop, file = asyncio.get_running_loop(), bench.file(process)
    times: list[float] = []
    while len(times) < count:
        work = bench.inference.forward(process, file, [], tokens, NONE, visible=NO_RANGES, mask=None,
                                       samples=[(len(tokens) - 1, Sampler())], probes=[])
        await ready(work)
        tokens = np.array(work.take().tokens, np.int32)
        times.append(loop.time())
        await asyncio.sleep(chosen.expovariate(1 / THINKING_SECONDS))
    return times


async def programs(policy: BatchPolicy, answer: int, *, asking: bool) -> Told:
    bench, told, chosen = await begin(policy), Told(), random.Random(1)
    began = asyncio.get_running_loop().time()

    async def program(number: int) -> None:
        own = random.Random(number)
        await asyncio.sleep(chosen.random())
        came, process = asyncio.get_running_loop().time(), bench.spawn(f"user {number % 8}")
        tokens, count = prompt(own, own.randint(32, 256)), own.randint(answer // 2, answer)
        times = await (ask(bench, process, tokens, count, own) if asking else decode(bench, process, tokens, count))
        told.add(came, times)
        process.kill()

    await asyncio.gather(*(program(number) for number in range(PROGRAMS)))
    told.ended_at -= began
    return told


async def burst(policy: BatchPolicy, seconds: float, long_prompts: int) -> tuple[Told, Told]:
    """What those who decode see, and those who come with short prompts; in the middle come long ones, all at once."""
    bench, chosen = await begin(policy), random.Random(2)
    decoders, shorts, loop = Told(), Told(), asyncio.get_running_loop()
    tasks: list[asyncio.Task[None]] = []

    async def program(owner: str, tokens: int, count: int, told: Told) -> None:
        came, process = loop.time(), bench.spawn(owner)
        told.add(came, await decode(bench, process, prompt(random.Random(len(tasks)), tokens), count))
        process.kill()

    for number in range(PROGRAMS):
        tasks.append(asyncio.create_task(program(f"user {number % 8}", 64, int(seconds * 100), decoders)))
    await asyncio.sleep(0.5)
    for _ in range(long_prompts):
        tasks.append(asyncio.create_task(program("burst", LONG_TOKENS, 8, Told())))
    ends = loop.time() + seconds
    while loop.time() < ends:
        await asyncio.sleep(chosen.expovariate(SHORTS_A_SECOND))
        count = chosen.randint(16, 256)
        tasks.append(asyncio.create_task(program(f"user {chosen.randrange(8)}", count, 16, shorts)))
    await asyncio.gather(*tasks)
    return decoders, shorts


async def begin(policy: BatchPolicy) -> Simulation:
    bench = Simulation(Foresight(), kv_tokens=KV_TOKENS, host_tokens=0, batching=policy)
    await bench.start()
    return bench


def compare(answer: int, *, asking: bool) -> dict[str, dict[str, float]]:
    found = {}
    print(f"\n{'token by token' if asking else 'runs':18}{'tokens/s':>9}{'first p50':>11}{'p99':>8}{'between p50':>13}"
          f"{'p99':>8}{'whole p50':>11}{'p99':>9}   (ms)")
    for name, make in POLICIES.items():
        told = simulate(programs(make(), answer, asking=asking))
        row = {"throughput": told.tokens / told.ended_at}
        for what, values in (("first", told.firsts), ("between", told.betweens), ("whole", told.wholes)):
            row |= {f"{what}_p50": percentile(values, 50) * 1e3, f"{what}_p99": percentile(values, 99) * 1e3}
        found[name] = row
        print(f"{name:18}" + "".join(f"{value:{width}.1f}" for value, width in zip(
            row.values(), (9, 11, 8, 13, 8, 11, 9), strict=True)), flush=True)
    return found


def best(found: dict[str, dict[str, float]]) -> bool:
    """Whether ours has the highest throughput and the shortest times, p50 and p99, of whole programs."""
    ours, others = found[OURS], [row for name, row in found.items() if name != OURS]
    return all(ours["throughput"] >= row["throughput"] and ours["whole_p50"] <= row["whole_p50"]
               and ours["whole_p99"] <= row["whole_p99"] for row in others)


def measure_burst(seconds: float) -> Figures:
    figures: Figures = {}
    without, beside = (simulate(burst(work_conserving(), seconds, count)) for count in (0, LONG_PROMPTS))
    print(f"\n{LONG_PROMPTS} prompts of {LONG_TOKENS} tokens at once   without      with   (p99, ms)")
    rows = (("tokens", "between tokens", without[0].betweens, beside[0].betweens),
            ("firsts", "to the first, of short prompts", without[1].firsts, beside[1].firsts))
    for key, what, *values in rows:
        before, after = (percentile(each, 99) * 1e3 for each in values)
        print(f"{what:33}{before:8.1f}{after:10.1f}")
        figures |= {f"burst_p99_ratio_{key}": after / before}
    figures["burst_p99_ratio"] = max(figures.values())
    return figures


async def measure(quick: bool) -> Figures:
    return await asyncio.to_thread(measure_all, quick)


def measure_all(quick: bool) -> Figures:
    figures: Figures = {}
    runs = compare(64 if quick else 256, asking=False)
    asked = compare(64 if quick else 256, asking=True)
    for key, found in (("", runs), ("_asked", asked)):
        figures |= {f"work_conserving_vs_eager{key}": found[OURS]["throughput"] / found["eager"]["throughput"],
                    f"best_of_four{key}": best(found)}
    return figures | measure_burst(6.0 if quick else 12.0)


if __name__ == "__main__":
    run(__doc__, measure)
