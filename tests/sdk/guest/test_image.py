"""The interpreter image in the real runtime: what a .py file may expect of its Python."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

import pytest

from cadenza.kernel.limits import ProcessLimits
from cadenza.kvfs.errors import Invalid

from .rig import ended, rig

pytestmark = pytest.mark.slow


def test_print_answer_and_arguments(tmp_path: Path) -> None:
    program = "def main(args):\n    print('hello', args.name)\n    return {'n': args.n}"
    done = ended(tmp_path, program, {"name": "Ä", "n": 1})
    assert done.status.ending == "finished"
    assert done.output == 'hello Ä\n{"n": 1}\n'


def test_main_may_do_without_arguments(tmp_path: Path) -> None:
    assert ended(tmp_path, "async def main():\n    return 'text'").output == "text\n"


def test_traceback_shows_the_program_and_nothing_else(tmp_path: Path) -> None:
    program = """
async def deep():
    raise ValueError('two\\nlines')

async def main(args):
    print('before', end='')
    await deep()
"""
    done = ended(tmp_path, program)
    assert (done.status.ending, done.status.code, done.status.message) == ("failed", 1, "ValueError: two lines")
    assert done.output == "before"
    assert done.error.startswith("Traceback (most recent call last):\n")
    assert '  File "main.py", line 7, in main\n    await deep()\n' in done.error
    assert re.findall(r'File "([^"]*)"', done.error) == ["main.py", "main.py"]


@pytest.mark.parametrize(
    ("raised", "code", "error"),
    [("SystemExit(3)", 3, ""), ("SystemExit", 0, ""), ("SystemExit('no')", 1, "no\n"), ("SystemExit(256 + 7)", 7, "")],
)
def test_exit(tmp_path: Path, raised: str, code: int, error: str) -> None:
    done = ended(tmp_path, f"async def main(args):\n    print('x', end='')\n    raise {raised}")
    assert (done.status.ending, done.status.code, done.output, done.error) == ("exited", code, "x", error)


def test_modules_data_files_and_packages(tmp_path: Path) -> None:
    files = {
        "main.py": "from tools.words import count\nimport random\ndef main(args): return count() + random.VALUE",
        "tools/words.py": "from . import sibling\ndef count(): return sibling.N + len(open('data.txt').read())",
        "tools/sibling.py": "N = 100\n",
        "random.py": "VALUE = 1000\n",
        "data.txt": "12345",
    }
    assert ended(tmp_path, files).output == "1105\n"


@pytest.mark.parametrize(
    ("program", "message"),
    [
        ("x = 1\ndef main(:\n    pass", "main.py:2: invalid syntax"),
        ("def main():\n  a\n b", "main.py:3: unindent does not match any outer indentation level"),
        ("x = 1", "main.py:1: no `main`"),
        ({"a.py": "", "b.py": ""}, "no main.py among a.py, b.py"),
        ({"main.py": "def main(): pass", "b/c.py": "1 +\n"}, "b/c.py:1: invalid syntax"),
    ],
)
def test_payload_is_checked_when_it_is_uploaded(tmp_path: Path, program: str | dict[str, str], message: str) -> None:
    with pytest.raises(Invalid, match=re.escape(message)):
        ended(tmp_path, program)


def test_clocks_randomness_and_sleep_come_from_the_kernel(tmp_path: Path) -> None:
    program = """
import asyncio, datetime, os, random, secrets, time, uuid
async def main(args):
    began = time.monotonic()
    await asyncio.sleep(0.02)
    time.sleep(0.02)
    assert 0.04 <= time.monotonic() - began < 30
    assert abs(time.time() - datetime.datetime.now().timestamp()) < 1
    assert time.strftime("%Y") == str(datetime.date.today().year)
    print(random.random(), random.Random().random(), os.urandom(5).hex(), secrets.token_hex(4), uuid.uuid4())
"""

    async def main() -> None:
        async with rig(tmp_path) as here:
            first, second = [await here.run(program) for _ in range(2)]
            assert first.status.ending == second.status.ending == "finished", first.error
            assert not set(first.output.split()) & set(second.output.split())

    asyncio.run(main())


def test_what_needs_an_operating_system_is_refused_with_the_reason(tmp_path: Path) -> None:
    program = """
import os, pathlib, socket, sys, threading
def main(args):
    for attempt in (
        lambda: open("/etc/passwd"),
        lambda: os.listdir("/"),
        lambda: os.stat("x"),
        lambda: pathlib.Path("x").read_text(),
        lambda: socket.socket(),
        lambda: socket.getaddrinfo("a", 1),
        lambda: open("new", "w"),
        lambda: input(),
        lambda: threading.Thread(target=print).start(),
        lambda: __import__("numpy"),
    ):
        try:
            attempt()
        except (OSError, RuntimeError, ImportError, AttributeError) as error:
            print(type(error).__name__)
        else:
            print("allowed")
    print(os.path.exists("x"), sys.stdin.isatty())
"""
    done = ended(tmp_path, program)
    assert done.status.ending == "finished", done.error
    refusals = [*["PermissionError"] * 7, "OSError", "RuntimeError", "ModuleNotFoundError"]
    assert done.output.split() == [*refusals, "False", "False"]


def test_asyncio_run_and_logging_work(tmp_path: Path) -> None:
    program = """
import asyncio, logging, sys, warnings
async def half(n): await asyncio.sleep(0.001); return n / 2
def main(args):
    logging.warning("careful")
    warnings.warn("old")
    print("lone \\ud800 surrogate")
    return asyncio.run(half(3))
"""
    done = ended(tmp_path, program)
    assert done.output == "lone ? surrogate\n1.5\n"
    assert "WARNING:root:careful\n" in done.error
    assert "UserWarning: old" in done.error


def test_error_in_a_forgotten_task_is_not_silent(tmp_path: Path) -> None:
    program = """
import asyncio
async def broken(): raise ValueError("lost")
async def main(args):
    task = asyncio.create_task(broken())
    await asyncio.sleep(0)
    del task
"""
    assert "ValueError: lost" in ended(tmp_path, program).error


def test_recursion_is_an_exception_and_memory_an_end(tmp_path: Path) -> None:
    deep = """
def f(n):
    return f(n + 1)

def main(args):
    try:
        f(0)
    except RecursionError:
        return 'deep'
"""
    assert ended(tmp_path, deep).output == "deep\n"
    hungry = """
def main(args):
    held = []
    while True:
        held.append(bytearray(1 << 20))
"""
    done = ended(tmp_path, hungry, limits=ProcessLimits(memory_bytes=64 << 20))
    assert done.status.ending == "memory-limit"
    assert f"{64 << 20} bytes (memory_bytes): MemoryError" in done.status.message
    caught = "def main(args):\n    try:\n        [0] * 10**8\n    except MemoryError:\n        return 'less'\n"
    assert ended(tmp_path, caught).output == "less\n"
