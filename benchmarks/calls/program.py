"""The program in which all agents work: it does the tasks of its arguments, and prints how many seconds each took.

Tools sleep for as long as the task says, call by call; they are expected to take what they take on average.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable
from statistics import mean
from typing import Any

from async_calls.adaptive import Adaptive
from async_calls.asynchronous import Asynchronous
from async_calls.cml import Code
from async_calls.executor import critical_path, longest_first
from async_calls.outcome import Agent, Outcome
from async_calls.profile import Profile
from async_calls.synchronous import Synchronous, calls_in
from async_calls.toolbox import Tool, Toolbox

import cadenza
from cadenza import Context

ANSWER = "Done."
BETWEEN_TASKS_SECONDS = 1.0            # until what is under way on the device is over


class Client:
    """Not beside the model: each turn is a request with the whole conversation, which costs `seconds` before it."""

    manner = "Functions one by one"

    def __init__(self, tools: Toolbox, seconds: float) -> None:
        self._tools = tools
        self._seconds = seconds

    async def act(self, context: Context) -> Outcome:
        outcome, messages = Outcome(turns=0), list(context.messages)
        while True:
            await asyncio.sleep(self._seconds)
            async with Context() as fresh:
                for message in messages:
                    fresh.message(str(message["role"]), str(message["content"]))
                said = await fresh.generate().text()
                outcome.turns += 1
                outcome.text, codes = calls_in(said)
                if not codes:
                    return outcome
                messages = [*fresh.messages, {"role": "tool", "content": await self._tools.run(codes[0])}]


async def main(args: cadenza.Arguments) -> None:
    profile = Profile()
    for task in args.tasks:
        left = [Code.parse(code) for _, code, _, _ in task["calls"]]
        agent = agent_of(args, task, toolbox(task, left), profile)
        async with Context() as context:
            context.system(f"{agent.manner}: {task['declared']}")
            context.user(task["user"])
            began = cadenza.events.now()
            outcome = await agent.act(context)
            took = cadenza.events.now() - began
        if left or outcome.text != ANSWER:
            raise RuntimeError(f"{task['user']!r} ended with {outcome.text!r} and {len(left)} calls to go")
        print(took, flush=True)
        await asyncio.sleep(BETWEEN_TASKS_SECONDS)


def agent_of(args: cadenza.Arguments, task: dict[str, Any], tools: Toolbox, profile: Profile) -> Agent:
    order = critical_path(task["after"], tools) if args.order == "critical-path" else longest_first
    asynchronous = Asynchronous(tools, resume=args.until, order=order)
    parallel = Synchronous(tools, parallel=True, order=order)
    match args.agent:
        case "client":
            return Client(tools, args.resume_seconds)
        case "one by one":
            return Synchronous(tools)
        case "parallel":
            return parallel
        case "asynchronous":
            return asynchronous
        case _:
            return Adaptive(tools, asynchronous, parallel, profile)


def toolbox(task: dict[str, Any], left: list[Code]) -> Toolbox:
    """The functions of a task. What is called goes from `left`."""
    tools, times = Toolbox(), defaultdict[str, list[float]](list)
    answers = [(seconds, value) for _, _, seconds, value in task["calls"]]
    for name, _, seconds, _ in task["calls"]:
        times[name].append(seconds)
    for name, expected in times.items():
        tools.put(Tool(name, sleeper(name, left, answers), mean(expected)))
    return tools


def sleeper(name: str, left: list[Code], answers: list[tuple[float, str]]) -> Callable[..., Awaitable[str]]:
    async def call(*arguments: object, **named: object) -> str:
        place = left.index(Code(name, arguments, tuple(named.items())))
        del left[place]
        seconds, value = answers.pop(place)
        await asyncio.sleep(seconds)
        return value
    return call
