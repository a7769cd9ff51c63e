"""What a blocking system call costs when a thousand programs make them at once.

Each program starts one decode on the NullDevice that delivers every token as it comes, and takes them one by one: a
`wait` that blocks, then `take-tokens`. Steps are scripted to take longer than the programs need, so that every wait
does block (counted), and what is measured is the daemon's CPU time over the number of waits: it includes the
`take-tokens`, and the call's share of the batch, the step and the delivery.
"""

from __future__ import annotations

import asyncio
import json
import statistics
import time
from pathlib import Path

from benchmarks.harness import Figures, kernel_over, null_link, run
from cadenza.kernel.device.null_device import CostModel
from cadenza.kernel.kernel import Kernel

PYTHON = b"""
from wit_world.imports import channel, events, inference, kv, process

def main(args):
    process.log(process.OutputStream.OUTPUT, "here")
    events.wait([channel.receive()], events.Until.ANY, None, [])
    file = kv.create()
    greedy = inference.Sampler(0.0, 0, 1.0, 0.0, 0)
    run = inference.decode(inference.Run(file, [], [1], [], None, greedy, args.calls, [], [], 1))
    handles, any_, running = [run], events.Until.ANY, inference.Finish.RUNNING
    wait, take = events.wait, inference.take_tokens
    while True:
        wait(handles, any_, None, [])
        if take(run).finish is not running:
            break
"""


async def measure_programs(kernel: Kernel, image: str, programs: int, calls: int) -> float:
    """CPU microseconds a blocking call, start and end of the programs left out."""
    processes = [kernel.spawn("bench", image, json.dumps({"calls": calls + 1})) for _ in range(programs)]
    while any(not p.output.read(0)[0] for p in processes):
        await asyncio.sleep(0.01)
    slices, started = kernel.scheduler.slices, time.process_time()
    for process in processes:
        process.deliver("go")
    ends = [await process.ended() for process in processes]
    spent = time.process_time() - started
    assert all(end.ending == "finished" for end in ends), ends[0]
    blocked = kernel.scheduler.slices - slices
    assert blocked >= programs * calls, f"only {blocked} waits blocked"
    return spent / (programs * calls) * 1e6


async def measure(quick: bool) -> Figures:
    from cadenza.sdk.c.build import build

    programs, calls, rounds = 1000, 100, 1 if quick else 3
    figures: dict[str, float] = {}
    for image, step_ms in (("compiled", 40.0), ("python", 120.0)):
        async with kernel_over(null_link(pages=32_768, cost=CostModel(fixed_ms=step_ms))) as kernel:
            source = PYTHON
            if image == "compiled":
                source = await asyncio.to_thread(build, [Path(__file__).with_name("syscalls.c")])
            await kernel.images.add("bench", source, name=image)
            await measure_programs(kernel, image, 20, 5)
            took = [await measure_programs(kernel, image, programs, calls) for _ in range(rounds)]
        print(f"{image}: {[round(t, 1) for t in took]} µs a call, {programs} programs, {calls} calls each", flush=True)
        figures[f"{image}_us_per_call"] = statistics.median(took)
    return {**figures, "programs": programs, "calls_each": calls}


if __name__ == "__main__":
    run(__doc__, measure)
