"""More programs than there is room for, on the bundled model: each says what it would have said alone."""

from __future__ import annotations

import asyncio
import json
import random
from pathlib import Path

import pytest

from cadenza.kernel.kernel import Kernel
from cadenza.server.boot import boot
from cadenza.server.options import ServeOptions

from .whole import end_of, output

PROGRAMS, ROUNDS = 12, 3
WORKING_SET_PAGES = 96                # at the least: programs that wait hold eight pages each

PROGRAM = """
import asyncio, json, cadenza

async def main(args):
    said = []
    async with cadenza.Context() as context:
        for words, seconds in args.rounds:
            context.user(words)
            generation = context.generate(max_tokens=24)
            await generation.text()
            said.append(generation.tokens)
            if args.named:
                await cadenza.timer(seconds).expect("search", seconds)
            else:
                await asyncio.sleep(seconds)
    print(json.dumps(said))
"""


def rounds(number: int, *, patient: bool) -> list[tuple[str, float]]:
    chosen = random.Random(number)
    names = ["Mara", "Ivo", "Lena", "Oslo", "Rome", "tea", "a lamp", "the river", "twelve", "green"]
    return [(" ".join(chosen.choice(names) for _ in range(12)) + "?", chosen.uniform(0.1, 0.6) * patient)
            for _ in range(ROUNDS)]


async def all_of(kernel: Kernel, *, patient: bool) -> list[str]:
    image = await kernel.images.add("ada", PROGRAM.encode())
    found = []
    for number in range(PROGRAMS):
        arguments = {"rounds": rounds(number, patient=patient), "named": number % 2 == 0}
        process = kernel.spawn("ada", image.digest, json.dumps(arguments))
        if not patient:
            await end_of(process)                # alone
        found.append(process)
    for process in found:
        status = await end_of(process)
        assert status.ending == "finished", (status, output(process, "error"))
    return [output(process) for process in found]


async def run(
    state: Path, pages: int, host_gib: float, policy: str, *, patient: bool
) -> tuple[list[str], dict[str, float]]:
    options = ServeOptions(state=state, threads=1, pages=pages, host_gib=host_gib, disk_gib=0.0, memory_policy=policy)
    kernel = await boot(options)
    try:
        said = await all_of(kernel, patient=patient)
        kernel.recount()
        return said, kernel.statistics()
    finally:
        await kernel.close()


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """What each says when there is nobody else, and room for all."""
    return asyncio.run(run(tmp_path_factory.mktemp("alone"), 4096, 0.25, "ours", patient=False))[0]


@pytest.mark.parametrize(("policy", "host_gib"), [
    ("ours", 0.25), ("ours", 0.0), ("infercept", 0.25), ("discard-tail", 0.0)])
def test_a_quarter_of_the_working_set_is_enough(
    tmp_path: Path, alone: list[str], policy: str, host_gib: float
) -> None:
    together, numbers = asyncio.run(run(tmp_path, WORKING_SET_PAGES // 4, host_gib, policy, patient=True))
    assert together == alone
    assert numbers["engine_swapped_out"] + numbers["engine_tokens_recomputed"] + numbers["engine_preemptions"] > 0
    assert numbers["kv_used"] == 0
