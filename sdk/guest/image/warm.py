"""A rehearsal at build time of what programs do: what it compiles and specializes is in the snapshot."""

from __future__ import annotations

import contextlib
import linecache
import sys
from types import CodeType

from . import output, program

PROGRAM = '''
import asyncio, json, re, random
from dataclasses import dataclass
from words import lists
import words.lists
import cadenza

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
        print(error)
    random.Random(7).shuffle(lists.LIST)
    return re.sub(r"(\\w+) \\d", r"\\1", args.get("question"))

@dataclass
class Rest:
    names: list[str]
    values: dict[str, int]
'''

ROUNDS = 16     # specialization sets in after a few
PAYLOAD = [("main.py", PROGRAM), ("words/__init__.py", ""), ("words/lists.py", "LIST = [1, 2, 3]")]
said: list[str] = []
SMALL = [("main.py", "async def main(args):\n    print('hello', flush=True)")]
ARGUMENTS = '{"question": "What?", "count": 3}'


def up() -> set[CodeType]:
    """Runs it all, without one system call: there is no kernel yet. Answers the code that ran."""
    ran: set[CodeType] = set()
    imports, modules, streams = sys.meta_path[:], set(sys.modules), (sys.stdin, sys.stdout, sys.stderr)
    try:
        for _ in range(ROUNDS):
            output.install(said.append, said.append)
            sys.setprofile(lambda frame, event, argument: ran.add(frame.f_code))
            program.run(SMALL, "{}", 7)
            sys.setprofile(None)
            rehearse()
            linecache.clearcache()       # the rehearsal's main.py is not the program's
            sys.meta_path[:] = imports
            for name in set(sys.modules) - modules:
                del sys.modules[name]
    finally:
        sys.stdin, sys.stdout, sys.stderr = streams
    return ran


def rehearse() -> None:
    program.check(PAYLOAD)
    try:
        program.run(PAYLOAD, ARGUMENTS, 7)
    except program.Failure as failure:
        raise AssertionError("".join(said)) from failure
    assert program.run([("main.py", "def main(): raise SystemExit(3)")], "{}", 7) == 3
    fail()
    said.clear()


def fail() -> None:
    """The way of a program that raises an exception, or is not one."""
    with contextlib.suppress(program.Failure):
        program.run([("main.py", "def main():\n    raise ValueError('wrong')")], "{}", 7)
    with contextlib.suppress(program.Failure):
        program.check([("main.py", "def main(:")])
