"""A Python program in Wasm under the virtual clock: what it sees of time is exact, to the step."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from cadenza.kernel.device.null_device import CostModel
from cadenza.kernel.virtual_clock import simulate

from .whole import output, whole

STEP_SECONDS, TOKENS = 0.008, 25

PROGRAM = """
import asyncio, json
from cadenza import File, Run
from cadenza.events import now

async def main(args):
    began = now()
    sum(range(3_000_000))                         # long enough to go to a worker thread
    computed = now()
    await asyncio.sleep(30)
    slept = now()
    run = Run(File.create(), [1], max_tokens=args.tokens)
    while run.finish == "running":
        await run.take()
    print(json.dumps([computed - began, slept - computed, now() - slept]))
"""


async def _times(state: Path) -> list[float]:
    async with whole(state, cost=CostModel(fixed_ms=STEP_SECONDS * 1000)) as running:
        return list(json.loads(output(await running.run(PROGRAM, {"tokens": TOKENS}))))


def test_computing_takes_no_time_sleeping_and_decoding_all_of_theirs(tmp_path: Path) -> None:
    async def compiled() -> None:                 # by a child process: there are none under a virtual clock
        async with whole(tmp_path):
            pass

    asyncio.run(compiled())
    assert simulate(_times(tmp_path)) == pytest.approx([0.0, 30.0, TOKENS * STEP_SECONDS], abs=1e-6)
