"""Tree of thought: each step of an answer is drawn several times, judged by the model, and the best go on.

Source: Yao et al., "Tree of Thoughts", arXiv 2305.10601, section 3 (thoughts sampled independently, each valued by
itself, breadth-first search: algorithm 1).
Arguments: `question`. `steps` (3), `thoughts` of each (3), `width`, how many go on (2). `temperature` (0.8),
`max_tokens` of a thought (32), `stop`, what ends one (a line break). `judge`, what the model is asked of an answer so
far; `good` and `bad`, what it may say to that ("sure", "impossible"). Prints what is kept with its values, and last the
best answer.

The kernel samples. A thought is a fork: what two of them have in common is computed and stored once. A value takes two
short passes over a fork.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from itertools import chain, count
from typing import TypeVar

import cadenza

from .loop import opened

T = TypeVar("T")
JUDGE = "Does this lead to the right answer? Say sure or impossible."


async def search(
    start: T,
    propose: Callable[[T], Awaitable[Sequence[T]]],
    value: Callable[[T], Awaitable[float]],
    steps: int,
    width: int,
) -> list[tuple[T, float]]:
    """The best `width` states with their values, best first, after so many steps. What is proposed, and what is valued,
    is at once."""
    kept = [(start, 0.0)]
    for _ in range(steps):
        states = list(chain(*await asyncio.gather(*(propose(state) for state, _ in kept))))
        values = await asyncio.gather(*map(value, states))
        kept = sorted(zip(states, values, strict=True), key=lambda pair: -pair[1])[:width]
    return kept


def preference(good: float, bad: float) -> float:
    """The probability of the good word, if only the two could be said; of their log-probabilities."""
    return 1 / (1 + math.exp(min(bad - good, 700.0)))


@dataclass(frozen=True)
class Thought:
    """An answer so far. `ended`: the model says that it is complete."""

    context: cadenza.Context
    text: str = ""
    ended: bool = False


async def next_thought(before: Thought, sampler: cadenza.Sampler, stop: str, max_tokens: int) -> Thought:
    context = before.context.fork()
    if before.text:
        context.fill(stop)
    generation = context.generate(max_tokens, sampler=sampler, stop=stop)
    text = f"{before.text}{stop if before.text else ''}{await generation.text()}"
    return Thought(context, text, generation.finish == "stop-token")


async def main(args: cadenza.Arguments) -> None:
    seeds, temperature = count(args.get("seed", 0)), args.get("temperature", 0.8)
    stop, max_tokens = args.get("stop", "\n"), args.get("max_tokens", 32)

    async def propose(before: Thought) -> Sequence[Thought]:
        if before.ended:
            return [before]
        samplers = [cadenza.Sampler(temperature, seed=next(seeds)) for _ in range(args.get("thoughts", 3))]
        return await asyncio.gather(*(next_thought(before, sampler, stop, max_tokens) for sampler in samplers))

    async def value(thought: Thought) -> float:
        async with thought.context.fork() as judge:
            judge.user(args.get("judge", JUDGE))
            good = await judge.score(args.get("good", "sure"))
            return preference(sum(good), sum(await judge.score(args.get("bad", "impossible"))))

    async with opened(args) as start:
        await start.prefill()
        found = await search(Thought(start), propose, value, args.get("steps", 3), args.get("width", 2))
    for thought, worth in reversed(found):
        print(f"{worth:8.3f}  {thought.text}")
        thought.context.close()
