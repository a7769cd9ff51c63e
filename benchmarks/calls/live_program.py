"""The program of the live comparison: does its tasks, and prints the seconds of each, and of a token and a prompt.

Between tasks the model says and reads something that nobody needs, to tell how fast it is just now.
"""

from __future__ import annotations

import asyncio
import json
from typing import Any

from async_calls.asynchronous import Asynchronous
from async_calls.outcome import Agent
from async_calls.synchronous import Synchronous
from async_calls.toolbox import Tool, Toolbox

import cadenza
from cadenza import Context, State

PACE_TOKENS, PROMPT_TOKENS = 32, 64


async def main(args: cadenza.Arguments) -> None:
    for task in args.tasks:
        before = await pace()
        tools = toolbox(task)
        agent = agent_of(args.agent, tools)
        async with Context() as context:
            context.system(f"{agent.manner}: {task['declared']}")
            context.user(task["user"])
            outcome = await agent.act(context)
        await asyncio.sleep(0.1)
        told = {"seconds": outcome.seconds, "tokens": outcome.tokens, "text": outcome.text,
                "calls": [job.code for job in outcome.jobs]}
        print(json.dumps({**told, "pace": [before, await pace()]}), flush=True)


async def pace() -> list[float]:
    """Seconds of a token that is said, and of one that is read. The prompt is a new one each time."""
    async with Context() as context:
        began = cadenza.events.now()
        noise = [1 + number * (1 + int(began * 1e6)) % 997 for number in range(PROMPT_TOKENS)]
        context.fill(noise)
        decoding = context.decode(PACE_TOKENS, stop_tokens=(), states=[State()])
        await decoding.token()
        first = cadenza.events.now()
        while await decoding.token() is not None:
            pass
        spoken = (cadenza.events.now() - first) / (PACE_TOKENS - 1)
        return [spoken, (first - began - spoken) / PROMPT_TOKENS]


def agent_of(name: str, tools: Toolbox) -> Agent:
    if name == "asynchronous":
        return Asynchronous(tools, max_tokens=420)
    return Synchronous(tools, parallel=name == "parallel", max_tokens=420)


def toolbox(task: dict[str, Any]) -> Toolbox:
    tools = Toolbox()
    for name, seconds, value in task["tools"]:
        tools.put(Tool(name, sleeper(seconds, value), seconds))
    return tools


def sleeper(seconds: float, value: str) -> Any:
    async def call(*arguments: object, **named: object) -> str:
        await asyncio.sleep(seconds)
        return value
    return call
