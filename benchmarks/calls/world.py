"""The whole kernel under a virtual clock, over the speaking device; and the one program that all agents run in."""

from __future__ import annotations

import asyncio
import io
import json
import tempfile
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

from benchmarks.calls.speaker import Speaker
from benchmarks.calls.tasks import Task
from benchmarks.calls.teachers import MANNERS, ORDERS, Script
from benchmarks.calls.words import VOCABULARY, Words
from cadenza.kernel.device.local_link import LocalLink
from cadenza.kernel.kernel import Kernel
from cadenza.kernel.limits import RUN_AHEAD_STEPS
from cadenza.kernel.virtual_clock import simulate
from cadenza.server.boot import Assembly, assemble

LIBRARY = Path(__file__).resolve().parents[2] / "inferlets" / "async_calls"
PROGRAM = Path(__file__).with_name("program.py")
USER, IMAGE = "bench", "agents"
TASKS_AT_ONCE = 10                     # that fit into a program's arguments


@dataclass(frozen=True)
class Mode:
    """How a task is worked on. `agent`: one of the program's. `order`: of what can be said, and of what waits for a
    slot. `until`: what a trap waits for, any result or all of them."""

    name: str
    agent: str
    order: str = "longest-first"
    until: str = "any"


@dataclass(frozen=True)
class Setting:
    """Seconds a step, whatever is in it; seconds to resume for a client."""

    name: str
    step: float
    resume: float
    run_ahead: int = RUN_AHEAD_STEPS


LOCAL, CLOUD = Setting("local", 0.008, 0.059), Setting("cloud", 0.005, 0.310)


def latencies(words: Words, tasks: Sequence[Task], mode: Mode, setting: Setting) -> list[float]:
    """Virtual seconds that each task takes, one after the other, alone on the machine. The interpreter has been
    compiled before (`prepare`). Raises RuntimeError when the program fails."""
    return simulate(_latencies(words, tasks, mode, setting))


def prepare(words: Words) -> None:
    """Compiles what there is to compile, in real time: that takes child processes."""
    async def once() -> None:
        with tempfile.TemporaryDirectory(prefix="cadenza-bench-") as state:
            await (await _kernel(words, Script(words), LOCAL, Path(state))).close()

    asyncio.run(once())


async def _latencies(words: Words, tasks: Sequence[Task], mode: Mode, setting: Setting) -> list[float]:
    with tempfile.TemporaryDirectory(prefix="cadenza-bench-") as state:
        kernel = await _kernel(words, script(words, tasks, mode.order), setting, Path(state))
        try:
            await kernel.images.add(USER, upload(PROGRAM.read_text()), name=IMAGE)
            groups = [tasks[first : first + TASKS_AT_ONCE] for first in range(0, len(tasks), TASKS_AT_ONCE)]
            return [took for group in groups for took in await _run(kernel, arguments(group, mode, setting))]
        finally:
            await kernel.close()


async def _kernel(words: Words, says: Script, setting: Setting, state: Path) -> Kernel:
    link = LocalLink(Speaker(says, VOCABULARY, setting.step * 1000))
    return await assemble(link, words.language, Assembly(state, run_ahead=setting.run_ahead))


async def _run(kernel: Kernel, arguments: dict[str, Any]) -> list[float]:
    process = kernel.spawn(USER, IMAGE, json.dumps(arguments))
    status = await process.ended()
    said = "".join(event.text for event in process.output.read(0)[0])
    if status.ending != "finished":
        raise RuntimeError(f"{status.ending}: {status.message}\n{said}")
    kernel.recount()
    return [float(line) for line in said.split()]


def script(words: Words, tasks: Sequence[Task], order: str) -> Script:
    """What is said to each task, in every manner."""
    says = Script(words)
    for task in tasks:
        for manner, teacher in MANNERS.items():
            told = f"<|system|>{manner}: {declarations(task)}<|end|><|user|>{task.question}<|end|>"
            says.teach(f"<|begin|>{told}<|assistant|>", partial(teacher, task, ORDERS[order]))
    return says


def declarations(task: Task) -> str:
    return "; ".join(task.functions)


def arguments(tasks: Sequence[Task], mode: Mode, setting: Setting) -> dict[str, Any]:
    """Of the program."""
    given = [{"user": task.question, "declared": declarations(task), "after": chained(task),
              "calls": [[call.name, call.code, call.seconds, call.value] for call in task.calls]} for task in tasks]
    return {"agent": mode.agent, "resume_seconds": setting.resume, "order": mode.order, "until": mode.until,
            "tasks": given}


def chained(task: Task) -> dict[str, list[str]]:
    """Which function needs the result of which."""
    return {before.name: [call.name] for chain in task.chains for before, call in pairwise(chain)}


def upload(program: str) -> bytes:
    """A program, and the library beside it."""
    written = io.BytesIO()
    with zipfile.ZipFile(written, "w") as archive:
        archive.writestr("main.py", program)
        for path in sorted(LIBRARY.glob("*.py")):
            archive.writestr(f"async_calls/{path.name}", path.read_text())
    return written.getvalue()
