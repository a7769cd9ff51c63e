"""Several answers to one question; the one that the model itself finds likeliest wins.

    cadenza run inferlets/best_of_n.py --question "Who are you?" --n 4

Arguments: `question`. `n`, how many answers (4). `temperature` (0.8). `max_tokens` of each (256). `seed` (0).
Prints the answers with their scores, and last the best one. A score is the mean log-probability of the answer's tokens.

The question is computed once: the candidates are forks of one context and share its pages; each is scored in one pass,
where it was written. Source: "sample and rank",
Adiwardana et al., "Towards a Human-like Open-Domain Chatbot", 2020, section 3.2.
"""

import asyncio
from dataclasses import dataclass

import cadenza


@dataclass(frozen=True)
class Candidate:
    """An answer; `score` is the mean log-probability of its tokens, at most 0."""

    text: str
    score: float


async def candidate(question: cadenza.Context, sampler: cadenza.Sampler, max_tokens: int) -> Candidate:
    async with question.fork() as attempt:
        asked = len(attempt)
        generation = attempt.generate(max_tokens, sampler=sampler)
        text = await generation.text()
        attempt.truncate(asked)
        scores = await attempt.score(generation.tokens)
    return Candidate(text, sum(scores) / len(scores))


async def best_of(
    question: cadenza.Context, count: int, temperature: float, max_tokens: int, seed: int
) -> list[Candidate]:
    """`count` candidates, the best one first."""
    question.fill([])               # the question ends where the answer begins
    await question.prefill()
    samplers = [cadenza.Sampler(temperature, seed=seed + number) for number in range(count)]
    found = await asyncio.gather(*(candidate(question, sampler, max_tokens) for sampler in samplers))
    return sorted(found, key=lambda each: each.score, reverse=True)


async def main(args: cadenza.Arguments) -> str:
    async with cadenza.Context() as question:
        question.user(args.question)
        found = await best_of(
            question,
            count=args.get("n", 4),
            temperature=args.get("temperature", 0.8),
            max_tokens=args.get("max_tokens", 256),
            seed=args.get("seed", 0),
        )
    for each in found:
        print(f"{each.score:8.3f}  {each.text}")
    return found[0].text
