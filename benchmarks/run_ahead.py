"""What it is worth to submit steps before the results of those before them are there.

Sixteen Python programs in Wasm decode on a device in a process of its own, at steps of a few milliseconds; one of them
stops each of its runs after a few tokens, with steps under way. Depth: steps submitted beyond the one that is computed.
Depth 0 is the unhurried engine. Depths take turns, round by round; the figures are medians of tokens a second over
those of depth 0. What programs see is the same at each depth: tests/kernel/test_run_ahead.py.
"""

from __future__ import annotations

import asyncio
import json
import statistics

from benchmarks.harness import Figures, kernel_over, run
from cadenza.kernel.device.kinds import NullConfig
from cadenza.kernel.device.worker_link import WorkerLink

DEPTHS, PROGRAMS = (0, 1, 2, 4), 16

PYTHON = b"""
from wit_world.imports import channel, events, inference, kv, process

def main(args):
    process.log(process.OutputStream.OUTPUT, "here")
    events.wait([channel.receive()], events.Until.ANY, None, [])
    any_, greedy = events.Until.ANY, inference.Sampler(0.0, 0, 1.0, 0.0, 0, [], None)
    left = args.tokens
    while left > 0:
        most = 5 if args.hasty else left
        run = inference.decode(inference.Run(kv.create(), [], [1], [], None, greedy, 400, [], [], 1, [], None, None))
        taken = 0
        while taken < most:
            events.wait([run], any_, None, [])
            taken += len(inference.take_tokens(run).tokens)
        inference.stop(run)
        events.close(run)
        left -= taken
"""


async def tokens_per_second(depth: int, tokens: int, step_ms: float) -> float:
    link = await WorkerLink.start(NullConfig(fixed_ms=step_ms, sleep=True))
    async with kernel_over(link, run_ahead=depth + 1) as kernel:
        await kernel.images.add("bench", PYTHON, name="decoder")
        started = [kernel.spawn("bench", "decoder", json.dumps({"tokens": tokens, "hasty": number == 0}))
                   for number in range(PROGRAMS)]  # fmt: skip
        while any(not process.output.read(0)[0] for process in started):
            await asyncio.sleep(0.01)
        loop = asyncio.get_running_loop()
        began = loop.time()
        for process in started:
            process.deliver("go")
        for process in started:
            assert (await process.ended()).ending == "finished"
        return PROGRAMS * tokens / (loop.time() - began)


async def measure(quick: bool) -> Figures:
    rounds, tokens, step_ms = (2, 150, 3.0) if quick else (5, 400, 3.0)
    found: dict[int, list[float]] = {depth: [] for depth in DEPTHS}
    for _ in range(rounds):
        for depth in DEPTHS:
            found[depth].append(await tokens_per_second(depth, tokens, step_ms))
        print({depth: round(rates[-1]) for depth, rates in found.items()}, "tokens a second", flush=True)
    median = {depth: statistics.median(rates) for depth, rates in found.items()}
    return {f"depth_{depth}_vs_0": median[depth] / median[0] for depth in DEPTHS[1:]} | {
        "depth_0_tokens_per_s": median[0], "most_tokens_per_s": PROGRAMS * 1000 / step_ms}


if __name__ == "__main__":
    run(__doc__, measure)
