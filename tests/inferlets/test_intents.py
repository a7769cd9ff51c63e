"""What an agent waits for the kernel knows, by name and with the time it may take; and it learns what it took."""

from __future__ import annotations

import asyncio
import json
from typing import cast

import pytest

from benchmarks.calls.world import upload
from cadenza.kernel.process import Process
from cadenza.kernel.virtual_clock import simulate
from cadenza.kernel.waits import Intent, Waits
from tests.inferlets.babbler import babbling, prepare

from .test_agents import CALL_A, TRAP, script_of

TOOK, EXPECTED = 3.0, 5.0
PROGRAM = f'''
import cadenza
from async_calls.asynchronous import Asynchronous
from async_calls.toolbox import Toolbox

tools = Toolbox()

@tools.add(seconds={EXPECTED}, name="f")
async def someday(number):
    async for text in cadenza.messages():      # no timer, no tool of the kernel's: it knows what it is told
        return text

async def main(args):
    context = cadenza.Context()
    context.fill("?")
    print((await Asynchronous(tools).act(context)).text)
'''


@pytest.mark.parametrize("reserved", [True, False])
def test_the_kernel_knows_what_is_waited_for_and_how_long_it_may_take(reserved: bool) -> None:
    async def test() -> None:
        async with babbling(reserved=reserved, script=script_of([(0, CALL_A + TRAP), (1, "so.")])) as kernel:
            await kernel.images.add("ada", upload(PROGRAM), name="someday")
            for number in range(4):
                process = kernel.spawn("ada", "someday", json.dumps({}))
                began = asyncio.get_running_loop().time()
                await asyncio.sleep(TOOK)
                waiting = process.waits.waiting[process]
                assert "f" in waiting.tools
                if not number:
                    left = waiting.remaining(asyncio.get_running_loop().time())
                    assert EXPECTED - TOOK <= left <= EXPECTED - TOOK + 1.0, "as the toolbox said, from when it began"
                process.deliver("7")
                assert (await process.ended()).ending == "finished"
                assert asyncio.get_running_loop().time() - began < EXPECTED
            assert process.waits.times.mean("ada", "f") == pytest.approx(TOOK, rel=0.2), "it has seen four"
    prepare()
    simulate(test())


class Owner:
    """All that a wait asks of a process."""

    owner, files = "ada", ()


def test_of_handles_that_are_gone_nothing_is_kept_and_a_cancelled_call_tells_nothing() -> None:
    async def test() -> None:
        waits, process = Waits(), cast(Process, Owner())
        waits.begin(process, [Intent(1, "f", 2.0), Intent(2, "g", 2.0), Intent(3, "timer", 1.0, True)], every=False)
        await asyncio.sleep(1.0)
        waits.end(process, [3])
        waits.closed(process, 1, ended=True)
        waits.closed(process, 2, ended=False)
        assert not waits._calls[process]
        assert [waits.times._of("ada", tool)[0].seen for tool in "fg"] == [1, 0]
    simulate(test())
