"""The answer that most of several samples agree on (self-consistency; Wang et al., 2022)."""

import asyncio
from collections import Counter

import cadenza

QUESTION = "Mara lives in Lisbon. Ivo lives in Oslo. Where does Ivo live?"


async def sample(question: cadenza.Context, seed: int) -> str:
    async with question.fork() as context:
        return await context.generate(max_tokens=60, sampler=cadenza.Sampler(temperature=0.7, seed=seed)).text()


async def main(args: cadenza.Arguments) -> str:
    async with cadenza.Context() as question:
        question.user(args.get("question", QUESTION))
        await question.prefill()
        answers = await asyncio.gather(*(sample(question, seed) for seed in range(args.get("voters", 5))))
    votes = Counter(answers)
    for answer, count in sorted(votes.items(), key=lambda vote: (-vote[1], vote[0])):
        print(f"{count} {answer}")
    return votes.most_common(1)[0][0]
