"""What a blocking system call costs when a thousand programs make them at once.

Each program starts one decode on the NullDevice that delivers every token as it comes, and takes them one by one with
`next-token`, which blocks. Steps are scripted to take longer than the programs need, so that every call does block
(counted), and what is measured is the daemon's CPU time over the number of calls while all programs make them, 100
each: it includes the call's share of the batch, the step and the delivery, and leaves out how programs begin and end.
`..._wait_and_take` is the same with two calls a token, `wait` and `take-tokens`: what a program costs that waits for
other things beside its run.
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
from cadenza.kernel.process import Process
from cadenza.sdk.c.build import build

PROGRAMS, CALLS = 1000, 100
NEARLY_ALL = 0.98            # of the calls must block: the machine may hesitate once
SPARE = 20                   # calls of each that are not measured: others begin or end beside them

PYTHON = b"""
from wit_world.imports import channel, events, inference, kv, process

def main(args):
    process.log(process.OutputStream.OUTPUT, "here")
    events.wait([channel.receive()], events.Until.ANY, None, [])
    file = kv.create()
    greedy = inference.Sampler(0.0, 0, 1.0, 0.0, 0, [], None)
    run = inference.decode(inference.Run(file, [], [1], [], None, greedy, args.calls, [], [], 1, [], None, None))
    handles, any_, running = [run], events.Until.ANY, inference.Finish.RUNNING
    wait, take, following, pairs = events.wait, inference.take_tokens, inference.next_token, args.pairs
    while True:
        if pairs:
            wait(handles, any_, None, [])
        else:
            while following(run) >= 0:
                pass
        if take(run).finish is not running:
            break
"""


async def measure_programs(kernel: Kernel, image: str, programs: int, calls: int, pairs: bool) -> float | None:
    """CPU microseconds a blocking call while all programs make them, from when each has begun to when the first ends;
    None if they did not block."""
    arguments = json.dumps({"calls": calls + SPARE, "pairs": int(pairs)})
    processes = [kernel.spawn("bench", image, arguments) for _ in range(programs)]
    while any(not p.output.read(0)[0] for p in processes):
        await asyncio.sleep(0.01)
    for process in processes:
        process.deliver("go")
    while min(process.tokens for process in processes) < SPARE // 2:
        await asyncio.sleep(0.05)
    slices, tokens, started = kernel.scheduler.slices, total(processes), time.process_time()
    while max(process.tokens for process in processes) < calls + SPARE // 2:
        await asyncio.sleep(0.05)
    spent, made = time.process_time() - started, total(processes) - tokens
    blocked = kernel.scheduler.slices - slices >= NEARLY_ALL * made
    ends = [await process.ended() for process in processes]
    assert all(end.ending == "finished" for end in ends), ends[0]
    return spent / made * 1e6 if blocked else None


def total(processes: list[Process]) -> int:
    return sum(process.tokens for process in processes)


async def measure_image(image: str, source: bytes, first_step_ms: float, rounds: int, calls: int = CALLS, *,
                        pairs: bool = False) -> float:
    """The median of rounds, at the shortest step at which every call blocks."""
    for step_ms in (first_step_ms, first_step_ms * 2, first_step_ms * 4):
        async with kernel_over(null_link(pages=32_768, cost=CostModel(fixed_ms=step_ms))) as kernel:
            await kernel.images.add("bench", source, name=image)
            await measure_programs(kernel, image, 20, 5, pairs)
            took = [await measure_programs(kernel, image, PROGRAMS, calls, pairs) for _ in range(rounds)]
        if all(took):
            how = "wait and take" if pairs else "one call"
            print(f"{image}, {how}: {[round(t or 0, 1) for t in took]} µs, at steps of {step_ms:g} ms", flush=True)
            return statistics.median(t for t in took if t)
    raise RuntimeError(f"{image}: programs were never all blocked; is the machine busy?")


async def measure(quick: bool) -> Figures:
    rounds, fewer = (1, CALLS // 5) if quick else (3, CALLS)
    wasm = await asyncio.to_thread(build, [Path(__file__).with_name("syscalls.c")])
    return {
        "compiled_us_per_call": await measure_image("compiled", wasm, 80.0, rounds),
        "python_us_per_call": await measure_image("python", PYTHON, 140.0, rounds),
        "compiled_us_wait_and_take": await measure_image("compiled", wasm, 80.0, rounds, fewer, pairs=True),
        "python_us_wait_and_take": await measure_image("python", PYTHON, 200.0, rounds, fewer, pairs=True),
        "programs": PROGRAMS, "calls_each": CALLS,
    }


if __name__ == "__main__":
    run(__doc__, measure)
