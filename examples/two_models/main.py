"""A model that interrupts another: one reads, the other acts, and does something more once the first has understood.

    cadenza run --name two_models examples/two_models

The reader is a program of its own, with a context of its own. It answers a question from a text and publishes what
follows from the answer; that interrupts the actor, who has begun already.
"""

import asyncio

from async_calls.asynchronous import USER, Asynchronous
from async_calls.toolbox import Toolbox

import cadenza

TEXT = "Mara keeps a red kite. Vera lives in Lisbon. Ivo is a baker. Where does Vera live?"
TASK = "Please find the hotel with guest Vera."

tools = Toolbox()


@tools.add(seconds=2.0)
async def find_hotel(guest: str) -> str:
    """The hotel of a guest; takes two seconds."""
    await asyncio.sleep(2.0)
    return "Talo"


@tools.add(seconds=0.1)
async def rate_tour(city: str) -> int:
    """How good the tour of a city is."""
    await asyncio.sleep(0.1)
    return 9


async def read(topic: str) -> None:
    """The reader: publishes what the actor should do, now that it knows where Vera lives."""
    async with cadenza.Context() as context:
        context.user(TEXT)
        said = await context.generate(max_tokens=40).text()
    print(f"the reader: {said}")
    cadenza.publish(topic, f"Also rate the tour with city {said.removesuffix('.').split()[-1]}.")


async def act(topic: str, image: str) -> None:
    with cadenza.subscribe(topic) as heard:
        cadenza.spawn(image, {"role": "reader", "topic": topic})
        agent = Asynchronous(tools, listen=[(USER, heard)])
        async with cadenza.Context() as context:
            context.system(f"{agent.manner}: {tools.declared}.")
            context.user(TASK)
            outcome = await agent.act(context)
    for job in outcome.jobs:
        print(f"{job.code} = {job.value}")
    print(outcome.text)


async def main(args: cadenza.Arguments) -> None:
    if args.get("role") == "reader":
        await read(args.topic)
    else:
        await act(f"two-models-{cadenza.pid()}", args.get("image", "two_models"))
