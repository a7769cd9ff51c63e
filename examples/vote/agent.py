"""Self-consistency (Wang et al. 2022, arXiv 2203.11171): several answers are drawn, and the most frequent is given."""

import asyncio
from collections import Counter

import cadenza

QUESTION = "Vera lives in Rome. Clara works as a baker. Where does Vera live?"


async def main(args: cadenza.Arguments) -> None:
    async with cadenza.Context() as context:
        context.user(args.get("question", QUESTION))
        await context.prefill()
        votes = Counter(await asyncio.gather(*(draw(context, seed) for seed in range(args.get("voters", 7)))))
    answer, count = votes.most_common(1)[0]
    print(f"{answer}  ({count} of {votes.total()} agree)")


async def draw(context: cadenza.Context, seed: int) -> str:
    async with context.fork() as fork:
        return await fork.generate(max_tokens=40, sampler=cadenza.Sampler(temperature=0.7, seed=seed)).text()
