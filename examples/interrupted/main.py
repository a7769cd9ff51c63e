"""A user who changes the task while the model is at work on it: what he says interrupts it.

    cadenza run examples/interrupted                    # says SAID after a while; or type a line yourself

Arguments: `task`; `said`, what the user says meanwhile; `after`, seconds before he does.
"""

import asyncio

from async_calls.asynchronous import USER, Asynchronous
from async_calls.toolbox import Toolbox

import cadenza

TASK = "Please find the hotel with guest Mara."
SAID = "Also count the boat with lane 5."

tools = Toolbox()


@tools.add(seconds=1.0)
async def find_hotel(guest: str) -> str:
    """The hotel of a guest; takes a second."""
    await asyncio.sleep(1.0)
    return "Talo"


@tools.add(seconds=0.1)
async def count_boat(lane: int) -> int:
    """The boats in a lane."""
    await asyncio.sleep(0.1)
    return 4


async def main(args: cadenza.Arguments) -> None:
    agent = Asynchronous(tools, listen=[(USER, cadenza.messages())])
    async with cadenza.Context() as context:
        context.system(f"{agent.manner}: {tools.declared}.")
        context.user(args.get("task", TASK))
        acting = asyncio.ensure_future(agent.act(context))
        await asyncio.sleep(args.get("after", 0.4))
        agent.interrupt(USER, args.get("said", SAID))
        outcome = await acting
    for job in outcome.jobs:
        print(f"{job.code} = {job.value}")
    print(outcome.text)
