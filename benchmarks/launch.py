"""How fast a Python program starts, and what it costs to keep one.

A daemon in a process of its own, on the NullDevice; a client on loopback. Warm: from the client's `spawn` to the
program's first line back, the image uploaded and run before. Cold: upload of a .py that was never seen, spawn, first
line. Then 1,000 programs that print nothing and block in a call: until all are blocked, and the daemon's memory
for each.
"""

from __future__ import annotations

import asyncio
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from benchmarks.harness import Figures, run
from cadenza.sdk.client import Client, Output

GREETER = 'def main(args):\n    print("here", {number})\n'
SLEEPER = "import cadenza\nasync def main(args):\n    await cadenza.receive()\n"


@asynccontextmanager
async def daemon(*options: str) -> AsyncIterator[tuple[int, str]]:
    """(pid, address) of a daemon with a state of its own."""
    with tempfile.TemporaryDirectory(prefix="cadenza-bench-") as state:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "cadenza.server.command_line", "serve", "--json", "--address", "127.0.0.1:0",
            "--state", state, *options, stdout=asyncio.subprocess.PIPE)
        try:
            assert process.stdout is not None
            while (line := await process.stdout.readline()) and b'"serving"' not in line:
                pass
            yield process.pid, json.loads(line)["serving"]
        finally:
            process.terminate()
            await process.wait()


def resident_mib(pid: int) -> float:
    """Resident memory, proportional: a page of the interpreter's image that a thousand programs map counts once, which
    VmRSS would count a thousand times."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) / 1024
    raise RuntimeError(f"process {pid} has no Pss")


async def first_line_ms(client: Client, image: str) -> float:
    started = time.perf_counter()
    process = await client.spawn(image)
    async with process.attach() as events:
        async for event in events:
            if isinstance(event, Output):
                return (time.perf_counter() - started) * 1e3
    raise RuntimeError("the program ended without a line")


async def cold_ms(client: Client, number: int) -> float:
    source = GREETER.format(number=os.getpid() * 1000 + number).encode()
    started = time.perf_counter()
    image = await client.upload(source)
    await first_line_ms(client, image.digest)
    return (time.perf_counter() - started) * 1e3


async def start_many(client: Client, pid: int, count: int) -> tuple[float, float]:
    """Seconds until `count` programs are blocked, and MiB each."""
    image = await client.upload(SLEEPER.encode(), name="sleeper")
    before = resident_mib(pid)
    started = time.perf_counter()
    await asyncio.gather(*(client.spawn(image) for _ in range(count)))
    while (await client.statistics())["processes_waiting"] < count:
        await asyncio.sleep(0.01)
    seconds = time.perf_counter() - started
    return seconds, (resident_mib(pid) - before) / count


async def measure(quick: bool) -> Figures:
    rounds = 50 if quick else 300
    async with daemon("--device", "null") as (pid, address), Client(address) as client:
        await client.upload(GREETER.format(number=0).encode(), name="greeter")
        for _ in range(10):
            await first_line_ms(client, "greeter")
        warm = [await first_line_ms(client, "greeter") for _ in range(rounds)]
        cold = [await cold_ms(client, number) for number in range(rounds // 5)]
        print(f"warm {statistics.quantiles(warm, n=20)[-1]:.1f} ms at p95, cold {max(cold):.1f} at most", flush=True)
        seconds, mib = await start_many(client, pid, 1000)
    return {"python_spawn_p50_ms": statistics.median(warm), "python_cold_ms": statistics.median(cold),
            "start_1000_s": seconds, "rss_per_process_mib": mib}


if __name__ == "__main__":
    run(__doc__, measure)
