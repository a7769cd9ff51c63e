"""What becomes of memory while programs wait for tools: every policy, at every rate, on the trace of InferCept.

The kernel itself runs under a virtual clock (simulation.py), with the constants of a 6B model on an A100. Each request
of the trace is a program: it prefills its prompt, decodes a segment, waits for its tool for as long as the trace says,
is given what came back, decodes the next. Arrivals are Poisson. Normalized latency is (finish − arrival − time of
tools) / output tokens. Figures are of virtual time: they do not depend on the machine, only on the seed.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.harness import Figures
from benchmarks.simulation import VOCABULARY, Simulation
from cadenza.kernel.batcher import WorkConserving
from cadenza.kernel.limits import STEP_ROWS, STEP_TOKENS
from cadenza.kernel.memory.foresight import Foresight
from cadenza.kernel.memory.named import POLICIES
from cadenza.kernel.virtual_clock import simulate

OURS, TAIL, ORACLE, ESTIMATOR = "ours", "discard-tail", "infercept-oracle", "infercept"
HOST_TOKENS = 400_000                 # 0.4 GB of a 6B model's KV in fp16 is 1,000 tokens or so: a host of 160 GB
LONGEST_TURN = 256                    # tokens of a completion that is given as text
TEXT_TOOLS = (("Generate an image", "image"), ("Convert this to text", "speech"))
COUNTED_TOOLS = ((700, "calculator"), (1500, "search"), (10_000, "household"))


@dataclass(frozen=True, slots=True)
class Segment:
    """`prompt` tokens of context, of which so many are new; then `completion` tokens, then a tool for `seconds`."""

    new: int
    completion: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Request:
    tool: str
    segments: tuple[Segment, ...]


@dataclass(frozen=True, slots=True)
class Job:
    """One run of the simulator."""

    policy: str
    rate: float
    kv_tokens: int
    requests: int = 1_000_000              # of the trace, spread over it
    seed: int = 1
    forks: int = 1
    shares: bool = True
    hints: bool = False
    whole: bool = False                    # prompts go into steps whole, as far as STEP_TOKENS goes, decodes or not


@dataclass(frozen=True, slots=True)
class Outcome:
    """Of one request, in seconds."""

    arrival: float
    first: float
    finish: float
    tools: float
    tokens: int

    @property
    def normalized(self) -> float:
        return (self.finish - self.arrival - self.tools) / self.tokens


def read_trace(path: Path) -> list[Request]:
    """Contexts as they are given. A text counts a token a character, and no more than 256 as a completion: the trace
    was published with texts cut to 256 characters where InferCept's were cut to 256 tokens, and counted so its contexts
    are those of the paper's table 1 (753 tokens for chat)."""
    requests = []
    for segments in json.loads(path.read_text()).values():
        sizes = [_sizes(segment) for segment in segments]
        held, read = 0, []
        for (prompt, completion), segment in zip(sizes, segments, strict=True):
            read.append(Segment(max(1, prompt - held), max(1, completion), float(segment.get("api_time") or 0)))
            held = max(held + 1, prompt) + completion
        requests.append(Request(_tool(segments[0]), tuple(read)))
    return requests


def _sizes(segment: dict[str, Any]) -> tuple[int, int]:
    if "prompt_tokens" in segment:
        return segment["prompt_tokens"], segment["completion_tokens"]
    return len(segment["prompt"]), min(LONGEST_TURN, len(segment["completion"]))


def _tool(segment: dict[str, Any]) -> str:
    if "prompt_tokens" in segment:
        return next(tool for most, tool in COUNTED_TOOLS if segment["prompt_tokens"] < most)
    asked = str(segment.get("api_token"))
    return next((tool for start, tool in TEXT_TOOLS if asked.startswith(start)), "person")


async def _live(simulation: Simulation, request: Request, job: Job, seed: int) -> Outcome:
    """One program. With forks it goes on as several that share what came before, one after the other's word."""
    loop, chosen = asyncio.get_running_loop(), np.random.default_rng(seed)
    process = simulation.spawn()
    arrival, firsts, finished = loop.time(), 0.0, 0.0
    file = simulation.file(process)
    tools, tokens, last = 0.0, 0, -1
    for number, segment in enumerate(request.segments):
        new = chosen.integers(1, VOCABULARY, segment.new).astype(np.int32)
        fed = np.concatenate([[last], new[:-1]]).astype(np.int32) if last >= 0 else new
        last, first = await simulation.decode(process, file, fed, segment.completion)
        firsts = firsts or first
        tokens += segment.completion
        if number + 1 < len(request.segments):
            tools += segment.seconds
            known = job.hints or job.policy == "infercept-oracle"
            await simulation.call(process, request.tool, segment.seconds, segment.seconds if known else None)
    finished = loop.time()
    process.kill()
    return Outcome(arrival, firsts, finished, tools, tokens)


async def _family(simulation: Simulation, request: Request, job: Job, seed: int) -> Outcome:
    """Four programs over forks of one prompt, each with its own calls: the slowest counts."""
    loop, chosen = asyncio.get_running_loop(), random.Random(seed)
    parent = simulation.spawn()
    arrival, file = loop.time(), simulation.file(parent)
    first_segment = request.segments[0]
    prompt = np.random.default_rng(seed).integers(1, VOCABULARY, first_segment.new + 512).astype(np.int32)
    last, first = await simulation.decode(parent, file, prompt, 1)

    async def branch(number: int) -> tuple[float, int]:
        process = simulation.spawn()
        mine = file.fork()
        process.files.add(mine)
        fed, tools, tokens = [last, number + 1], 0.0, 0
        for at, segment in enumerate(request.segments):
            said, _ = await simulation.decode(process, mine, fed, segment.completion)
            tokens += segment.completion
            if at + 1 < len(request.segments):
                seconds = segment.seconds * chosen.uniform(0.5, 1.5)
                tools += seconds
                await simulation.call(process, request.tool, seconds)
                new = request.segments[at + 1].new
                fed = [said, *np.random.default_rng(seed + number).integers(1, VOCABULARY, new).tolist()]
        process.kill()
        return tools, tokens

    ended = await asyncio.gather(*(branch(number) for number in range(job.forks)))
    parent.kill()
    return Outcome(arrival, first, loop.time(), max(tools for tools, _ in ended), sum(n for _, n in ended))


async def _replay(job: Job, requests: list[Request]) -> Figures:
    policy = POLICIES[job.policy] if job.shares else Foresight(name="ours-unaware", shares=False)
    batching = WorkConserving(STEP_TOKENS, STEP_ROWS, STEP_TOKENS) if job.whole else None
    simulation = Simulation(policy, kv_tokens=job.kv_tokens, host_tokens=HOST_TOKENS, batching=batching)
    await simulation.start()
    chosen = random.Random(job.seed)
    order = chosen.sample(requests, len(requests))       # the trace lists one kind of request after the other
    live = _live if job.forks == 1 else _family
    running = []
    for number, request in enumerate(order):
        await asyncio.sleep(chosen.expovariate(job.rate))
        running.append(asyncio.ensure_future(live(simulation, request, job, 1000 * job.seed + number)))
    outcomes = await asyncio.gather(*running)
    simulation.files.recount()
    simulation.engine.pager.recount()
    name = policy.name + "-whole" * job.whole + "-hints" * job.hints
    return _figures(job, name, outcomes, simulation)


def _figures(job: Job, name: str, outcomes: list[Outcome], simulation: Simulation) -> Figures:
    normalized = sorted(outcome.normalized for outcome in outcomes)
    firsts = sorted(outcome.first - outcome.arrival for outcome in outcomes)
    waste, engine = simulation.link.waste, simulation.engine
    span = max(outcome.finish for outcome in outcomes) - min(outcome.arrival for outcome in outcomes)
    return {
        "policy": name, "rate": job.rate, "kv_tokens": job.kv_tokens, "p50": _at(normalized, 0.5),
        "p90": _at(normalized, 0.9), "p99": _at(normalized, 0.99), "ttft": _at(firsts, 0.5),
        "per_second": len(outcomes) / span, "keeping": waste.percent("keeping"),
        "recomputing": waste.percent("recomputing"), "swapping": waste.percent("swapping"),
        "waste": waste.wasted_percent, "idle": waste.percent("idle"), "preemptions": engine.preemptions,
        "recomputed": engine.tokens_recomputed, "swapped": engine.pager.swapped_out + engine.pager.swapped_in,
    }  # fmt: skip


def _at(ordered: list[float], share: float) -> float:
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def run_job(job: Job, trace: Path) -> Figures:
    """In a process of its own, or here."""
    requests = read_trace(trace)
    return simulate(_replay(job, requests[:: max(1, len(requests) // job.requests)]))


# --- the benchmark ---

Runner = Callable[[Iterable[Job]], list[Figures]]
COLUMNS = (("policy", "16"), ("rate", "5.2f"), ("kv_tokens", "9"), ("p50", "8.4f"), ("p90", "8.4f"), ("p99", "8.4f"),
           ("ttft", "7.3f"), ("per_second", "6.2f"), ("keeping", "7.2f"), ("recomputing", "7.2f"), ("swapping", "7.2f"),
           ("waste", "7.2f"), ("idle", "7.1f"), ("preemptions", "5"))  # fmt: skip


@dataclass(frozen=True, slots=True)
class Plan:
    """What is run. Rates in requests per second: those of the table, by room for KV, and higher ones, to find what is
    sustained in the first of the rooms. `idle`: of a machine with nothing to do; `paper`: at which waste is told."""

    rooms: dict[int, tuple[float, ...]]
    policies: tuple[str, ...]
    idle: float
    climb: tuple[float, ...]
    paper: float
    requests: int


FULL = Plan({50_000: (4.0, 2.0, 1.0, 3.0), 120_000: (4.0, 2.0)}, tuple(POLICIES), 0.5,
            (5.5, 8.0, 11.0, 16.0), 3.0, 1_000_000)  # fmt: skip
QUICK = Plan({10_000: ()}, (), 0.05, (2.0, 8.0), 0.5, 20)


def line(figures: Figures) -> str:
    return "  ".join(format(figures[key], ("<" if key == "policy" else ">") + spec) for key, spec in COLUMNS)


def header() -> str:
    widths = [int(spec.split(".")[0].rstrip("f")) for _, spec in COLUMNS]
    return "  ".join(key[:width].rjust(width) for (key, _), width in zip(COLUMNS, widths, strict=True))


def measure(run: Runner, plan: Plan) -> Figures:
    """`load_ratio`, `latency_ratio`: ours over discarding as serving systems do it (whole prompts, to the end of the
    line); `…_chunked`: over the same with our batcher, which hides recomputing beside decodes."""
    room = next(iter(plan.rooms))
    job = partial(Job, requests=plan.requests)
    rivals: dict[str, dict[float, Figures]] = {"ours": {}, "chunked": {}, "whole": {}}
    climb = [(name, rate) for rate in (plan.idle, *plan.climb) for name in rivals]
    found = run(job(OURS if name == "ours" else TAIL, rate, room, whole=name == "whole") for name, rate in climb)
    for (name, rate), figures in zip(climb, found, strict=True):
        rivals[name][rate] = figures
    best = {name: max(rate for rate in rows if rows[rate]["p50"] <= 2 * rows[plan.idle]["p50"])
            for name, rows in rivals.items()}
    loaded = [best["whole"], best["chunked"], best["ours"]]
    waste = run(job(policy, rate, room) for rate in sorted(set(loaded)) for policy in (ORACLE, ESTIMATOR))
    p90 = {(row["policy"], row["rate"]): row["p90"] / rivals["ours"][row["rate"]]["p90"] for row in waste}
    paper = run([job(OURS, plan.paper, room), job(OURS, plan.paper, room, hints=True)])
    shared = run(job(OURS, best["whole"] / 8, room, forks=4, shares=shares) for shares in (True, False))
    run(job(policy, rate, kv) for kv, rates in plan.rooms.items() for rate in rates for policy in plan.policies)
    ratio = {name: rivals[name][best[name]]["p50"] / rivals["ours"][best[name]]["p50"] for name in rivals}
    return {
        "load_ratio": best["ours"] / best["whole"], "latency_ratio": ratio["whole"],
        "load_ratio_chunked": best["ours"] / best["chunked"], "latency_ratio_chunked": ratio["chunked"],
        "waste_percent": paper[0]["waste"], "idle_percent": paper[0]["idle"],
        "oracle_over_ours_p90": min(p90[ORACLE, rate] for rate in loaded),
        "estimator_over_ours_p90": min(p90[ESTIMATOR, rate] for rate in loaded),
        "hints_over_none_p90": paper[1]["p90"] / paper[0]["p90"],
        "unaware_over_ours_p90": shared[1]["p90"] / shared[0]["p90"],
        "unaware_over_ours_swapped": shared[1]["swapped"] / max(1, shared[0]["swapped"]),
        **{f"{name}_rate": best[name] for name in rivals},
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("trace", type=Path, help="infercept_trace.json")
    parser.add_argument("--quick", action="store_true", help="under 50 seconds on two cores: a sixth of the trace")
    options = parser.parse_args()
    with ProcessPoolExecutor(2) as pool:
        def run(jobs: Iterable[Job]) -> list[Figures]:
            found = []
            for figures in pool.map(partial(run_job, trace=options.trace), jobs):
                print(line(figures), flush=True)
                found.append(figures)
            return found

        print(header(), flush=True)
        figures = measure(run, QUICK if options.quick else FULL)
    print(json.dumps({key: round(value, 4) if isinstance(value, float) else value for key, value in figures.items()}))


if __name__ == "__main__":
    main()
