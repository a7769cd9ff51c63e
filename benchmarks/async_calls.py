"""What it is worth that a model need not wait for the functions that it calls (AsyncLM, arXiv 2412.07017).

Tasks of the Berkeley function calling leaderboard, solved by a model that says what the solution is and nothing else,
on the kernel itself under a virtual clock: the guest library in Wasm, engine, batcher, and a device whose steps take 8
ms (local) or 5 ms (cloud). A client that resumes pays 59 or 310 ms before each of its turns. Four ways to work:

    client          one call a turn, each turn a request of its own that is prefilled anew; tools at the client
    one by one      the same as a program beside the model
    parallel        every call that can be made in one turn, all at once
    asynchronous    calls run while the model goes on; a trap waits for any result, or for all

and one that is told nothing and chooses between the last two by what it has seen: adaptive. Latencies are means over
tasks, ratios are of means. Beside every figure stands execution over generation: the mean time of a call in execution,
over the mean time in which its text is said.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from statistics import mean

from benchmarks.calls.made_up import write
from benchmarks.calls.tasks import Task, multistep_tasks, parallel_tasks
from benchmarks.calls.words import Words
from benchmarks.calls.world import CLOUD, LOCAL, Mode, Setting, latencies, prepare
from benchmarks.harness import Figures
from benchmarks.picture import Line, draw

CLIENT = Mode("client", "client")
ONE_BY_ONE = Mode("one by one", "one by one")
PARALLEL = Mode("parallel", "parallel")
ASYNCHRONOUS = [Mode(f"asynchronous, {until}, {order}", "asynchronous", order=order, until=until)
                for until in ("any", "all") for order in ("longest-first", "critical-path")]
MODES = [CLIENT, ONE_BY_ONE, PARALLEL, *ASYNCHRONOUS]
CRITICAL = ASYNCHRONOUS[1]
ADAPTIVE = Mode("adaptive", "adaptive", order="critical-path")
SWEPT = [PARALLEL, CRITICAL, ADAPTIVE]
KINDS: dict[str, Callable[[Path, int, int], list[Task]]] = {
    "parallel": parallel_tasks, "multistep": multistep_tasks, "uneven": partial(multistep_tasks, even=False)}
FIRST_FREE = "first free"              # how much faster than a client whose first request costs nothing to begin
SEED = 1


@dataclass(frozen=True)
class Job:
    """Tasks of one kind, worked on in one mode. `ratio`: of execution over generation, as it is or as it is made."""

    kind: str
    count: int
    mode: Mode
    setting: Setting
    ratio: float | None = None


@dataclass(frozen=True)
class Plan:
    """How many tasks of each kind, by setting; the ratios of the sweep, and its tasks."""

    tasks: dict[Setting, dict[str, int]]
    ratios: tuple[float, ...]
    swept: dict[str, int]


EVERY = {"parallel": 60, "multistep": 20, "uneven": 20}
FULL = Plan({LOCAL: EVERY, CLOUD: EVERY}, (0.1, 0.2, 0.35, 0.5, 0.7, 1.0, 2.0, 5.0, 10.0),
            {"parallel": 20, "multistep": 10})
QUICK = Plan({LOCAL: {"parallel": 30, "multistep": 10}, CLOUD: {"multistep": 5}}, (0.1, 0.6, 10.0),
             {"parallel": 10, "multistep": 5})


@cache
def words_of(directory: Path) -> Words:
    return Words(directory)


def tasks_of(job: Job, directory: Path) -> list[Task]:
    tasks = KINDS[job.kind](directory, job.count, SEED)
    if job.ratio is None:
        return tasks
    factor = job.ratio / ratio(tasks, words_of(directory), job.setting)
    return [task.scaled(factor) for task in tasks]


def ratio(tasks: Sequence[Task], words: Words, setting: Setting) -> float:
    """Of execution over generation, a call."""
    calls = [call for task in tasks for call in task.calls]
    return mean(call.seconds for call in calls) / (setting.step * mean(len(words.tokens(call.code)) for call in calls))


def run_job(job: Job, directory: Path) -> float:
    """Mean latency in seconds. In a process of its own, or here."""
    return mean(latencies(words_of(directory), tasks_of(job, directory), job.mode, job.setting))


Runner = Callable[[Iterable[Job]], list[float]]


def table(run: Runner, kind: str, count: int, setting: Setting, directory: Path) -> dict[str, float]:
    """Prints the baselines side by side; answers how much faster than the client each of them is, and FIRST_FREE."""
    jobs = [Job(kind, count, mode, setting) for mode in MODES]
    tasks, words = tasks_of(jobs[0], directory), words_of(directory)
    calls = [call for task in tasks for call in task.calls]
    print(f"\n{kind}, {setting.name}: {count} tasks of {len(calls) / len(tasks):.1f} calls, "
          f"{mean(len(words.tokens(call.code)) for call in calls):.1f} tokens and {setting.step * 1000:g} ms each; "
          f"execution {mean(call.seconds for call in calls) * 1000:.0f} ms, "
          f"{ratio(tasks, words, setting):.2f} of generation; resume {setting.resume * 1000:g} ms")
    found = dict(zip((mode.name for mode in MODES), run(jobs), strict=True))
    faster = {name: found[CLIENT.name] / seconds for name, seconds in found.items()}
    for name, seconds in found.items():
        print(f"  {name:34} {seconds * 1000:8.0f} ms   client × {faster[name]:.2f}   "
              f"one by one × {found[ONE_BY_ONE.name] / seconds:.2f}   parallel × {found[PARALLEL.name] / seconds:.2f}",
              flush=True)
    return faster | {
        FIRST_FREE: (found[CLIENT.name] - setting.resume) / found[CRITICAL.name], "ratio": ratio(tasks, words, setting)}


def sweep(run: Runner, kind: str, plan: Plan) -> tuple[list[list[float]], Figures]:
    """Latencies by ratio, in the order of SWEPT; the crossover, and how much worse adaptive is than the better."""
    jobs = [Job(kind, plan.swept[kind], mode, LOCAL, at) for at in plan.ratios for mode in SWEPT]
    found = run(jobs)
    rows = [found[first : first + len(SWEPT)] for first in range(0, len(found), len(SWEPT))]
    print(f"\n{kind}: execution over generation, latency of {', '.join(mode.name for mode in SWEPT)} in ms")
    for at, row in zip(plan.ratios, rows, strict=True):
        print(f"  {at:5g}  " + "  ".join(f"{seconds * 1000:8.0f}" for seconds in row)
              + f"   asynchronous × {row[0] / row[1]:.3f}   adaptive × {row[0] / row[2]:.3f}", flush=True)
    worst = 100 * max(row[2] / min(row[:2]) for row in rows) - 100
    return rows, {f"crossover_{kind}": crossover(plan.ratios, rows), f"adaptive_{kind}_worst_percent": worst}


def crossover(ratios: Sequence[float], rows: Sequence[Sequence[float]]) -> float:
    """Above which asynchronous is faster than parallel, between two ratios in proportion; 0: always."""
    lead = [row[0] / row[1] - 1 for row in rows]
    below = [number for number, each in enumerate(lead) if each < 0]
    if not below:
        return 0.0
    last = below[-1]
    if last + 1 == len(lead):
        return float("inf")
    share = -lead[last] / (lead[last + 1] - lead[last])
    return ratios[last] + share * (ratios[last + 1] - ratios[last])


def measure(run: Runner, plan: Plan, directory: Path) -> Figures:
    faster = {(kind, setting): table(run, kind, count, setting, directory)
              for setting, kinds in plan.tasks.items() for kind, count in kinds.items()}
    figures: Figures = {}
    for (kind, setting), found in faster.items():
        name = kind + "_cloud" * (setting is CLOUD)
        best = found[CRITICAL.name]
        figures |= {f"{name}_vs_sync": best, f"{name}_vs_sync_first_free": found[FIRST_FREE],
                    f"{name}_vs_one_by_one": best / found[ONE_BY_ONE.name],
                    f"{name}_vs_parallel": best / found[PARALLEL.name], f"{name}_ratio": found["ratio"]}
    lines = []
    for kind in plan.swept:
        rows, told = sweep(run, kind, plan)
        figures |= told
        lines += [Line(f"{kind}, {mode.name.partition(',')[0]}",
                       [(at, row[0] / row[place]) for at, row in zip(plan.ratios, rows, strict=True)])
                  for place, mode in enumerate(SWEPT) if mode is not PARALLEL]
    if plan is FULL:
        draw("async_calls.svg", "Asynchronous calls, over synchronous parallel ones", "execution over generation",
             "times faster than in-engine parallel", lines)
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", type=Path, help="the folder of the leaderboard; without it tasks are made up")
    parser.add_argument("--quick", action="store_true", help="under 50 seconds on two cores: fewer tasks, no picture")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="cadenza-bench-") as made_up, ProcessPoolExecutor(2) as pool:
        directory = options.tasks or Path(made_up)
        if options.tasks is None:
            write(directory)
            print("no --tasks: made-up ones, which say little")
        prepare(words_of(directory))
        figures = measure(lambda jobs: list(pool.map(partial(run_job, directory=directory), jobs)),
                          QUICK if options.quick else FULL, directory)
    print(json.dumps({key: round(value, 3) for key, value in figures.items()}))


if __name__ == "__main__":
    main()
