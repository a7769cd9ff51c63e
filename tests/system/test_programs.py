"""Programs as users write them, on the real runtime: what they may do, and what happens to those that go too far."""

from __future__ import annotations

import asyncio
import io
import json
import zipfile
from pathlib import Path
from typing import Any

import pytest

from cadenza.kernel.limits import ProcessLimits
from cadenza.kvfs.errors import Invalid, NotFound

from .whole import end_of, in_loop, output, said, whole

NEIGHBOUR = """
import asyncio, cadenza
async def main(args):
    print("up")
    for turn in range(20):
        file = cadenza.File.create()
        done = await cadenza.forward(file, [1, 2, 3], samples=[(2, cadenza.Sampler())])
        file.close()
        await asyncio.sleep(0.01)
    print("fine", done.tokens)
"""

DECODE = """
import cadenza
async def main(args):
    file = cadenza.File.create()
    run = cadenza.Run(file, [7] * args.get("prompt", 3), max_tokens=args.get("tokens", 100000))
    said = 0
    while run.finish == "running":
        said += len(await run.take())
        if said > 3: print("decoding")
"""


def test_a_program_of_several_modules_with_ordinary_asyncio(tmp_path: Path) -> None:
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as files:
        files.writestr("main.py", "import asyncio\nfrom parts.count import count\n"
                       "async def main(args):\n"
                       "    async with asyncio.timeout(5):\n"
                       "        print(sum(await asyncio.gather(*(count(n) for n in range(args.n)))))\n")
        files.writestr("parts/__init__.py", "")
        files.writestr("parts/count.py", "import asyncio\n"
                       "async def count(n):\n    await asyncio.sleep(0.001 * n)\n    return n\n")

    async def test() -> None:
        async with whole(tmp_path) as system:
            process = await system.run(archive.getvalue(), {"n": 10})
            assert (output(process), process.exit.ending if process.exit else "") == ("45\n", "finished")
    in_loop(test)


def test_what_a_program_says_of_its_failure_reaches_its_log(tmp_path: Path) -> None:
    async def test() -> None:
        async with whole(tmp_path) as system:
            process = await system.run("def main(args):\n    x = 1\n    return [][x]\n")
            assert process.exit is not None
            assert (process.exit.ending, process.exit.code) == ("failed", 1)
            assert "IndexError" in process.exit.message
            assert "line 3, in main" in output(process, "error")
            left = await system.run("def main(args):\n    raise SystemExit(7)\n")
            assert left.exit is not None
            assert (left.exit.ending, left.exit.code) == ("exited", 7)
    in_loop(test)


@pytest.mark.parametrize(("upload", "fault"), [
    (b"async def main(args):\n    x = (\n    return\n", r"main.py:2"),
    (b"\0asm\x01\0\0\0", "component"),
    (b"\0asm\x0d\0\x01\0\xff\xff", "."),
    (b"\x7fELF\x02\x01\x01\0\xff", "neither Wasm"),
    (b"  \n", "empty"),
    (b"PK\3\4 not really a zip", "zip"),
])
def test_bad_uploads_are_refused_and_leave_nothing(tmp_path: Path, upload: bytes, fault: str) -> None:
    async def test() -> None:
        async with whole(tmp_path) as system:
            with pytest.raises(Invalid, match=fault):
                await system.kernel.images.add("ada", upload)
            assert system.kernel.images.list("ada") == []
            assert not [f for f in (tmp_path / "images").rglob("*") if f.is_file()]
            with pytest.raises(NotFound):
                system.kernel.spawn("ada", "0123456789abcdef", "{}")
    in_loop(test)


SPINS = "def main(args):\n    print('spinning')\n    while True: pass\n"
GROWS = "def main(args):\n    print('growing')\n    held = []\n    while True: held.append(bytes(1 << 20))\n"
FLOODS = "def main(args):\n    while True: print('x' * 1000)\n"
RECURSES = "import sys\nsys.setrecursionlimit(10**9)\ndef f(n): return f(n + 1)\ndef main(args): f(0)\n"


@pytest.mark.parametrize(("source", "limits", "endings"), [
    (SPINS, ProcessLimits(cpu_fuel=3_000_000_000), {"cpu-limit"}),
    (SPINS, ProcessLimits(wall_seconds=0.5), {"wall-limit"}),
    (GROWS, ProcessLimits(memory_bytes=96 << 20), {"memory-limit"}),
    (FLOODS, ProcessLimits(output_bytes=100_000), {"output-limit"}),
    (RECURSES, ProcessLimits(), {"failed", "trapped"}),
    (DECODE, ProcessLimits(wall_seconds=0.5), {"wall-limit", "finished"}),
])
def test_a_program_that_goes_too_far_ends_and_its_neighbour_does_not_notice(
    tmp_path: Path, source: str, limits: ProcessLimits, endings: set[str]
) -> None:
    async def test() -> None:
        async with whole(tmp_path) as system:
            neighbour = await system.start(NEIGHBOUR, user="bob")
            await said(neighbour, "up")
            process = await system.run(source, limits=limits)
            assert process.exit is not None
            assert process.exit.ending in endings, process.exit
            assert process.exit.code != 0 or process.exit.ending == "finished"
            assert (await end_of(neighbour)).ending == "finished", output(neighbour, "error")
            assert "fine" in output(neighbour)
    in_loop(test)


def test_a_program_killed_in_the_middle_of_a_pass_gives_everything_back(tmp_path: Path) -> None:
    async def test() -> None:
        async with whole(tmp_path) as system:
            process = await system.start(DECODE, {"prompt": 500})
            await said(process, "decoding")
            system.kernel.signal("ada", process.pid, "kill")
            status = await end_of(process)
            assert (status.ending, status.code) == ("killed", 137)
            await asyncio.sleep(0.05)
            assert system.kernel.statistics()["kv_used"] == 0
    in_loop(test)


@pytest.mark.parametrize(("call", "errno"), [
    ("await cadenza.forward(file, [1], samples=[(0, cadenza.Sampler(temperature=float('nan')))])", "Invalid"),
    ("await cadenza.forward(file, [1] * 5000)", "TooLong"),
    ("await cadenza.forward(file, [99999])", "Invalid"),
    ("await cadenza.forward(file, [1], mask=cadenza.Mask([]), samples=[(0, cadenza.Sampler())])", "Invalid"),
    ("await cadenza.forward(file, [1, 2], visible=[cadenza.Visible(1, 0, 1)])", "Invalid"),
    ("cadenza.File.open('/home/bob/secret')", "NotFound"),
    ("cadenza.spawn('no-such-image')", "NotFound"),
    ("cadenza.kill(4711)", "NotFound"),
    ("cadenza.model.tokenize('text')", "Unsupported"),
])
def test_bad_requests_get_an_error_that_the_program_can_catch(tmp_path: Path, call: str, errno: str) -> None:
    source = ("import cadenza\nasync def main(args):\n    file = cadenza.File.create()\n    try:\n"
              f"        {call}\n    except cadenza.{errno} as error:\n        print('caught', error)\n")

    async def test() -> None:
        async with whole(tmp_path, context_tokens=4096) as system:
            process = await system.run(source)
            assert output(process).startswith("caught "), (process.exit, output(process, "error"))
    in_loop(test)


def test_parent_child_and_messages(tmp_path: Path) -> None:
    source = """
import cadenza
async def main(args):
    if args.get("role") == "child":
        cadenza.push("answers", await cadenza.pull("asked").receive() + "!")
        return
    child = cadenza.spawn(args.image, {"role": "child"})
    cadenza.push("asked", await cadenza.receive())
    cadenza.send(await cadenza.pull("answers").receive())
    print((await child.wait()).ending)
"""

    async def test() -> None:
        async with whole(tmp_path) as system:
            image = await system.kernel.images.add("ada", source.encode())
            process = system.kernel.spawn("ada", image.digest, json.dumps({"image": image.digest}))
            process.deliver("hello")
            status = await end_of(process)
            assert status.ending == "finished", output(process, "error")
            assert output(process, "message") == "hello!"
            assert output(process) == "finished\n"
    in_loop(test)


def test_stopping_a_run_leaves_what_was_consumed(tmp_path: Path) -> None:
    source = """
import cadenza
async def main(args):
    plain = cadenza.File.create()
    run, said = cadenza.Run(plain, [5, 6], max_tokens=12), []
    while run.finish == "running":
        said += await run.take()
    broken = cadenza.File.create()
    run, first = cadenza.Run(broken, [5, 6], max_tokens=1000), []
    while len(first) < 4:
        first += await run.take()
    run.stop()
    assert broken.status().tokens == 2 + len(first) - 1, broken.status()
    run = cadenza.Run(broken, first[-1:], max_tokens=12 - min(12, len(first)) or 1)
    rest = []
    while run.finish == "running":
        rest += await run.take()
    print((first + rest)[:12] == said[:12])
"""

    async def test() -> None:
        async with whole(tmp_path) as system:
            process = await system.run(source)
            assert output(process) == "True\n", (process.exit, output(process, "error"))
    in_loop(test)


def test_a_lost_device_is_told_to_programs_and_does_not_take_them_along(tmp_path: Path) -> None:
    source = """
import cadenza
async def main(args):
    print("up")
    await cadenza.receive()
    try:
        await cadenza.forward(cadenza.File.create(), [1])
    except cadenza.DeviceLost as error:
        print("told:", error)
"""

    async def test() -> None:
        async with whole(tmp_path) as system:
            process = await system.start(source)
            await said(process, "up")
            link: Any = system.kernel.engine.link
            link.fail("struck by lightning")
            await asyncio.sleep(0)
            process.deliver("go")
            assert (await end_of(process)).ending == "finished"
            assert "struck by lightning" in output(process)
    in_loop(test)


def test_images_outlive_the_daemon(tmp_path: Path) -> None:
    async def test() -> None:
        async with whole(tmp_path) as system:
            source = b"def main(args):\n    print('again')\n"
            for data in (source, b"def main(args):\n    print('changed')\n", source):   # and changed back
                image = await system.kernel.images.add("ada", data, name="again")
                assert system.kernel.images.get("ada", "again").digest == image.digest
        async with whole(tmp_path) as system:
            assert system.kernel.images.get("ada", "again").digest == image.digest
            process = system.kernel.spawn("ada", "again", "{}")
            await end_of(process)
            assert output(process) == "again\n"
            with pytest.raises(NotFound):
                system.kernel.images.get("bob", "again")
    in_loop(test)
