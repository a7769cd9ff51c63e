"""A rehearsal at build time of what programs do: what it compiles and specializes is in the snapshot."""

from __future__ import annotations

import asyncio
import json
import random
import re
from dataclasses import dataclass

from cadenza.arguments import Arguments
from cadenza.loop import Loop

from . import traces
from .sources import Sources

PROGRAM = '''
import asyncio, json
from dataclasses import dataclass

@dataclass(frozen=True)
class Point:
    x: int
    y: int = 2

class Failed(Exception):
    """Nothing."""

async def half(number: int) -> float:
    await asyncio.sleep(0)
    return number / 2

async def numbers(count):
    for number in range(count):
        yield number

async def main(args):
    """Says something."""
    halves = await asyncio.gather(*(half(n) for n in range(8)))
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(half(n)) for n in range(4)]
    queue = asyncio.Queue()
    queue.put_nowait(f"{args.question!r} {Point(1)} {sum(halves):.2f}")
    text = [f"{number}: {await queue.get()}" async for number in numbers(1)]
    try:
        raise Failed(json.dumps({"said": text, "tasks": [task.result() for task in tasks]}))
    except (ValueError, Failed) as error:
        return str(error)

@dataclass
class Rest:
    names: list[str]
    values: dict[str, int]
'''

ROUNDS = 12     # specialization sets in after a few


def up() -> None:
    """Runs it all, without one system call: there is no kernel yet."""
    for _ in range(ROUNDS):
        rehearse()


def rehearse() -> None:
    sources = Sources([("main.py", PROGRAM), ("words/__init__.py", ""), ("words/lists.py", "LIST = [1, 2, 3]")])
    assert not sources.faults()
    namespace: dict[str, object] = {"__name__": "rehearsal"}
    exec(sources.compiled("main.py"), namespace)
    main = namespace["main"]
    assert callable(main)
    Loop().run(main(Arguments(json.loads('{"question": "What?"}'))))
    random.Random(7).shuffle(list(range(20)))
    re.sub(r"(\w+) \d", r"\1", "abc 1")
    fail()


def fail() -> None:
    try:
        asyncio.get_running_loop()
    except RuntimeError as error:
        traces.written(error)
        traces.in_one_line(error)


@dataclass
class Unused:
    """Its decorator is warmed by being written here."""

    name: str
