"""Does the model call what was asked and say what came of it? `scripts/eval-model`, 1,000 held-out tasks, greedy.

    single, parallel, multi_step, interrupts    live and asynchronous: a task counts if its calls are exactly those
                                                that were asked for and its answer tells exactly what they returned
    documents                                   a question about documents: the answer to the last sign
    …, one by one and all at once               the same jobs and the same weights, synchronously

Functions, names and values of the held-out side only (train/world.py). Sentences and calls may come in any order, as
their times have it. Seconds are virtual: tokens and calls take the times that the job has drawn.
"""

from __future__ import annotations

import argparse
import json
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from cadenza.inferlets.async_calls.cml import Code, Malformed
from train.agent import left_out, told
from train.dialogue import END, Dialogue
from train.evaluate import note
from train.functions import Chain
from train.jobs import Job, Plan
from train.live import MOST_TOKENS, AsynchronousHost, Row, Stage, SynchronousHost, sentences
from train.tasks.calls import ALL_AT_ONCE, INTERRUPTED, INTERRUPTING, MULTI_STEP, ONE_BY_ONE, PARALLEL, SINGLE, opening
from train.tasks.documents import Documents
from train.world import Split, World

PLANS: dict[str, Plan] = {
    "single": SINGLE, "parallel": PARALLEL, "multi_step": MULTI_STEP, "interrupts": INTERRUPTED,
}  # fmt: skip
LEAST = {"single": 0.95, "parallel": 0.95, "multi_step": 0.9, "interrupts": 0.9, "documents": 0.95}
"""What the model should reach."""
REACH = 12

Canonical = tuple[str, tuple[tuple[str, object], ...]]


@dataclass(frozen=True)
class Expected:
    """What a job asks for: what must be called and told, and what may be, since it was taken back on the way."""

    calls: Counter[Canonical]
    sentences: Counter[str]
    perhaps: frozenset[str]


def canonical(code: str) -> Canonical:
    """A call, whatever the order of its arguments. Raises `Malformed`."""
    parsed = Code.parse(code)
    if parsed.arguments:
        raise Malformed(f"{code!r} has arguments without names")
    return parsed.name, tuple(sorted(parsed.named, key=lambda pair: pair[0]))


def followed(job: Job, chain: Chain) -> tuple[list[Canonical], str]:
    """The chain's calls, and what is told of it."""
    calls: list[Canonical] = []
    value = ""
    for request in chain.requests:
        reply = job.replies[request.function.noun]
        calls.append(canonical(request.code(value)))
        value, last = reply.value, told(request.function.noun, reply)
        if reply.failed:
            break
    return calls, last


def expected(job: Job, heard: int) -> Expected:
    """`heard` of the user's interrupts came before the end."""
    interrupts = job.interrupts[:heard]
    chains = [*job.chains, *(interrupt.chain for interrupt in interrupts if interrupt.chain)]
    dropped = {interrupt.left_out for interrupt in interrupts if interrupt.left_out}
    results = [(*followed(job, chain), chain.requests[-1].function.noun in dropped) for chain in chains]
    must = [sentence for _, sentence, taken_back in results if not taken_back]
    return Expected(
        Counter(call for calls, _, _ in results for call in calls),
        Counter([*must, *map(left_out, dropped)]),
        frozenset(sentence for _, sentence, taken_back in results if taken_back),
    )


def right(row: Row, host: AsynchronousHost | SynchronousHost) -> tuple[bool, bool]:
    """Whether the calls are right, and whether the answer is."""
    heard = len(host.job.interrupts) - len(host.runtime.users) if isinstance(host, AsynchronousHost) else 0
    wanted = expected(host.job, heard)
    try:
        calls = Counter(map(canonical, host.codes))
    except Malformed:
        return False, False
    said = Counter(sentence for sentence in sentences(host.said) if sentence not in wanted.perhaps)
    complete = row.ended and not row.malformed and host.finished
    return calls == wanted.calls, complete and said == wanted.sentences


def jobs(kind: str, count: int, seed: int) -> list[Job]:
    source = random.Random(f"judge {kind} {seed}")
    return [PLANS[kind].job(World(source, Split.HELD_OUT, REACH)) for _ in range(count)]


def judge_jobs(stage: Stage, kind: str, tasks: Sequence[Job], manner: str, show: int) -> dict[str, float]:
    """Scores from 0 to 1, and mean virtual seconds of a job."""
    make = AsynchronousHost if manner == INTERRUPTING else SynchronousHost
    hosts: list[AsynchronousHost | SynchronousHost] = [make(job) for job in tasks]
    rows = [stage.row(Dialogue(kind, tuple(opening(host.job, manner))), host) for host in hosts]
    stage.play(rows)
    found = [right(row, host) for row, host in zip(rows, hosts, strict=True)]
    for (calls, answer), row, host in zip(found, rows, hosts, strict=True):
        if show and not (calls and answer):
            show -= 1
            print(f"  {host.job.declared(manner)} {host.job.asked}\n    {stage.text(row)}\n    {expected(host.job, 9)}")
    return {
        "exact": share([calls and answer for calls, answer in found]),
        "calls": share([calls for calls, _ in found]),
        "answers": share([answer for _, answer in found]),
        "malformed": share([row.malformed for row in rows]),
        "seconds": round(sum(host.seconds for host in hosts) / len(hosts), 3),
    }


def share(hits: Sequence[bool]) -> float:
    return round(sum(hits) / len(hits), 4)


@dataclass
class Listener:
    """Hears one turn to its end."""

    finished: bool = False
    said: str = ""

    def hear(self, piece: str) -> str:
        self.finished = piece == END
        self.said += "" if self.finished else piece
        return ""


def judge_documents(stage: Stage, count: int, seed: int, show: int) -> dict[str, float]:
    source = random.Random(f"judge documents {seed}")
    dialogues = [Documents("documents").dialogue(World(source, Split.HELD_OUT, REACH)) for _ in range(count)]
    hosts = [Listener() for _ in dialogues]
    before = [Dialogue("documents", dialogue.turns[:-1]) for dialogue in dialogues]
    stage.play([stage.row(dialogue, host) for dialogue, host in zip(before, hosts, strict=True)])
    answers = [dialogue.turns[-1].text for dialogue in dialogues]
    for dialogue, host, answer in zip(before, hosts, answers, strict=True):
        if show and host.said != answer:
            show -= 1
            print(f"  {dialogue.render()}\n    {host.said}\n    {answer}")
    unknown = [host.said == answer for host, answer in zip(hosts, answers, strict=True) if "not know" in answer]
    return {
        "exact": share([host.said == answer for host, answer in zip(hosts, answers, strict=True)]),
        "unknown": share(unknown or [True]),
    }


def judge(folder: Path, count: int, seed: int, show: int = 0, most_tokens: int = MOST_TOKENS) -> dict[str, Any]:
    """All scores; `count` tasks of each of the five kinds."""
    stage = Stage(folder, most_tokens)
    scores: dict[str, Any] = {"seed": seed, "tasks": count * len(LEAST), "asynchronous": {}, "synchronous": {}}
    for kind in PLANS:
        tasks = jobs(kind, count, seed)
        scores["asynchronous"][kind] = judge_jobs(stage, kind, tasks, INTERRUPTING, show)
        print(f"{kind:24} {scores['asynchronous'][kind]}  (at least {LEAST[kind]:.0%})", flush=True)
        for manner in (ONE_BY_ONE, ALL_AT_ONCE) if kind != "interrupts" else ():
            name = f"{kind} {manner.removeprefix('Functions ')}"
            scores["synchronous"][name] = judge_jobs(stage, kind, tasks, manner, show)
            print(f"{name:24} {scores['synchronous'][name]}", flush=True)
    scores["documents"] = judge_documents(stage, count, seed, show)
    print(f"{'documents':24} {scores['documents']}  (at least {LEAST['documents']:.0%})", flush=True)
    return scores


def main() -> None:
    bundled = Path(__file__).parents[1] / "kernel" / "model" / "bundled"
    parser = argparse.ArgumentParser(prog="scripts/eval-model", description=__doc__)
    parser.add_argument("--model", type=Path, default=bundled, help="folder with the model's files")
    parser.add_argument("--count", type=int, default=200, help="tasks of each of the five kinds")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--show", type=int, default=0, help="print up to this many misses of each kind")
    parser.add_argument("--out", type=Path, help="a JSON file to put the scores into")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    scores = judge(options.model, options.count, options.seed, options.show)
    if options.out:
        note(options.out, {"judged": scores})
    exact = {kind: value["exact"] for kind, value in scores["asynchronous"].items()}
    print(json.dumps(exact | {"documents": scores["documents"]["exact"]}))


if __name__ == "__main__":
    main()
