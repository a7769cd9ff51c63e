"""Errands that don't wait for each other: a report is read and its finding sent on, while a lamp is copied.

    cadenza run --timeline errands.html examples/errands

Arguments: `task`, what to do; `mode`: asynchronous (default), parallel or one-by-one. The functions are local and take
a while; the model speaks on while they run, and is interrupted by what they return.
"""

import asyncio

from async_calls.asynchronous import Asynchronous
from async_calls.outcome import Agent
from async_calls.synchronous import Synchronous
from async_calls.toolbox import Toolbox

import cadenza

TASK = "Please read the report with topic 7, then send the letter with topic that and guest Vera. " \
       "Also copy the lamp with colour silver."

tools = Toolbox()


@tools.add(seconds=0.3)
async def read_report(topic: object) -> str:
    """What a report found."""
    await asyncio.sleep(0.3)
    return "rain"


@tools.add(seconds=2.0)
async def copy_lamp(colour: str) -> int:
    """Orders another lamp; answers how many there are."""
    await asyncio.sleep(2.0)
    return 2


@tools.add(seconds=0.1)
async def send_letter(guest: str, topic: str) -> int:
    """Mails a topic to a guest; answers the number of the letter."""
    await asyncio.sleep(0.1)
    return 41


AGENTS: dict[str, Agent] = {
    "asynchronous": Asynchronous(tools),
    "parallel": Synchronous(tools, parallel=True),
    "one-by-one": Synchronous(tools),
}


async def main(args: cadenza.Arguments) -> None:
    agent = AGENTS[args.get("mode", "asynchronous")]
    async with cadenza.Context() as context:
        context.system(f"{agent.manner}: {tools.declared}.")
        context.user(args.get("task", TASK))
        outcome = await agent.act(context)
    for job in outcome.jobs:
        print(f"{job.code} = {job.value}")
    print(outcome.text)
