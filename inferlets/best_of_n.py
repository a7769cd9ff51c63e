"""The best of several answers: n forks of one context are sampled at once, and the likeliest on average wins.

    cadenza run inferlets/best_of_n.py --question "Say hello." --n 4

question: what to answer. n: how many (4). temperature (0.8), seed: how they are drawn. max_tokens: of each (100).
verbose: all of them, with their mean log-probabilities. (Best-of-n by mean log-probability: Adiwardana et al. 2020,
arXiv 2001.09977, section 3.2, "sample and rank".)
"""

import asyncio

import cadenza


async def main(args: cadenza.Arguments) -> str:
    async with cadenza.Context() as context:
        context.user(args.question)
        await context.prefill()                      # computed once; the forks share its pages
        answers = await asyncio.gather(*(
            attempt(context, args.get("temperature", 0.8), args.get("seed", 0) + n, args.get("max_tokens", 100))
            for n in range(args.get("n", 4))
        ))
    answers.sort(reverse=True)
    if args.get("verbose"):
        for score, text in answers:
            print(f"{score:8.3f}  {text}")
    return answers[0][1]


async def attempt(context: cadenza.Context, temperature: float, seed: int, max_tokens: int) -> tuple[float, str]:
    """(mean log-probability of its tokens, text)."""
    async with context.fork() as fork:
        generation = fork.generate(max_tokens, sampler=cadenza.Sampler(temperature=temperature, seed=seed))
        text = await generation.text()
        scores = await context_before(fork, len(generation.tokens)).score(generation.tokens)
        return sum(scores) / len(scores), text


def context_before(fork: cadenza.Context, tokens: int) -> cadenza.Context:
    """`fork` without its last tokens."""
    fork.truncate(len(fork) - tokens)
    return fork
