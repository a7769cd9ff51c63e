"""The simulator against the kernel that it simulates.

The same programs at the same times, on a device of the same cost, with room for a third of them: once as coroutines
under the virtual clock (simulation.py), once as uploaded Python programs in Wasm, in real time, over the NullDevice.
What is compared is when programs end, counted from when each began, and when the last of them does.
"""

from __future__ import annotations

import asyncio
import json
import random
import statistics
from dataclasses import dataclass

from benchmarks.harness import Figures, kernel_over, null_link, run
from benchmarks.simulation import PAGE_TOKENS, Simulation
from cadenza.kernel.device.null_device import CostModel
from cadenza.kernel.memory.named import memory_policy
from cadenza.kernel.virtual_clock import simulate

KV_TOKENS, HOST_TOKENS = 4096, 64_000
# Steps long enough for programs in Wasm to keep up with on two cores.
COST = CostModel(fixed_ms=20.0, per_token_ms=0.05, saturation_tokens=384, per_moved_page_ms=0.64, overlapped=True)

PYTHON = b"""
from wit_world.imports import events, inference, kv

def main(args):
    file, any_, last = kv.create(), events.Until.ANY, []
    greedy = inference.Sampler(0.0, 0, 1.0, 0.0, 0, [], None)
    for prompt, completion, seconds in args.turns:
        tokens = last + [1 + (args.number * 977 + n * 31) % 900 for n in range(prompt)]
        handle = inference.decode(inference.Run(
            file, [], tokens, [], None, greedy, completion, [], [], completion, [], None, None))
        events.wait([handle], any_, None, [])
        last = inference.take_tokens(handle).tokens[-1:]
        events.close(handle)
        timer = events.timer(int(seconds * 1e9))
        events.wait([timer], any_, None, [events.Intent(timer, args.tool, None)])
        events.close(timer)
"""


@dataclass(frozen=True, slots=True)
class Agent:
    """When it begins, and its turns: tokens of the prompt, tokens decoded, seconds of its tool."""

    at: float
    tool: str
    turns: tuple[tuple[int, int, float], ...]


def agents(count: int, seed: int) -> list[Agent]:
    chosen = random.Random(seed)
    found, at = [], 0.5
    for _ in range(count):
        at += chosen.expovariate(4.0)
        slow = chosen.random() < 0.5
        turns = tuple((chosen.randint(60, 250), chosen.randint(5, 25), chosen.uniform(1, 3) if slow else 0.15)
                      for _ in range(3))  # fmt: skip
        found.append(Agent(at, "slow" if slow else "quick", turns))
    return found


async def simulated(plan: list[Agent]) -> list[float]:
    """Seconds that each takes, and how long all do."""
    simulation = Simulation(memory_policy("ours"), kv_tokens=KV_TOKENS, host_tokens=HOST_TOKENS, cost=COST)
    await simulation.start()
    loop = asyncio.get_running_loop()
    began = loop.time()

    async def live(number: int, agent: Agent) -> float:
        await asyncio.sleep(began + agent.at - loop.time())
        start, process = loop.time(), simulation.spawn()
        file = simulation.file(process)
        last: list[int] = []
        for prompt, completion, seconds in agent.turns:
            tokens = last + [1 + (number * 977 + n * 31) % 900 for n in range(prompt)]
            last = [(await simulation.decode(process, file, tokens, completion))[0]]
            await simulation.call(process, agent.tool, seconds)
        process.kill()
        return loop.time() - start

    took = await asyncio.gather(*(live(number, agent) for number, agent in enumerate(plan)))
    return [*took, loop.time() - began]


async def lived(plan: list[Agent]) -> tuple[list[float], float]:
    """The same in real time, and how many pages were swapped."""
    link = null_link(pages=KV_TOKENS // PAGE_TOKENS, page_tokens=PAGE_TOKENS, host_pages=HOST_TOKENS // PAGE_TOKENS,
                     cost=COST)
    loop = asyncio.get_running_loop()
    async with kernel_over(link) as kernel:
        await kernel.images.add("bench", PYTHON, name="agent")
        warm = kernel.spawn("bench", "agent", json.dumps({"turns": [(5, 2, 0.01)], "number": 0, "tool": "quick"}))
        await warm.ended()
        began = loop.time()

        async def live(number: int, agent: Agent) -> float:
            await asyncio.sleep(began + agent.at - loop.time())
            start = loop.time()
            process = kernel.spawn("bench", "agent",
                                   json.dumps({"turns": agent.turns, "number": number, "tool": agent.tool}))
            status = await process.ended()
            assert status.ending == "finished", status
            return loop.time() - start

        took = await asyncio.gather(*(live(number, agent) for number, agent in enumerate(plan)))
        return [*took, loop.time() - began], kernel.engine.pager.swapped_out


async def measure(quick: bool) -> Figures:
    plan = agents(40 if quick else 120, 7)
    real, swapped = await lived(plan)
    told = await asyncio.to_thread(simulate, simulated(plan))
    print(f"{len(plan)} programs, room for {KV_TOKENS} tokens, {swapped:g} pages swapped out")
    return {
        "mean_simulated_over_live": statistics.mean(told[:-1]) / statistics.mean(real[:-1]),
        "p90_simulated_over_live": sorted(told[:-1])[len(plan) * 9 // 10] / sorted(real[:-1])[len(plan) * 9 // 10],
        "makespan_simulated_over_live": told[-1] / real[-1], "mean_live_s": statistics.mean(real[:-1]),
    }  # fmt: skip


if __name__ == "__main__":
    run(__doc__, measure)
