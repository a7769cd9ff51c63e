"""Self-consistency: several ways of reasoning are drawn, and the answer that most of them come to is given.

Source: Wang et al., "Self-Consistency Improves Chain of Thought Reasoning", arXiv 2203.11171, section 2.
Arguments: `question`, or `prompt`. `n`, how many ways (5). `temperature` (0.7). `max_tokens` of each (64). `answer`, a
regular expression: what it finds last in a text is its answer (a number); the last line, where it finds nothing.

The kernel samples, in its own steps: no distribution is asked for. The ways are forks, computed at once, and share the
question. Prints each, and last the answer.
"""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from collections.abc import Sequence

import cadenza

from .loop import opened

NUMBER = r"-?\d+(?:[.,]\d+)*"


def answer_of(text: str, pattern: str) -> str:
    found = [match.group() for match in re.finditer(pattern, text)]
    return found[-1] if found else text.strip().rpartition("\n")[2]


def voted(answers: Sequence[str]) -> tuple[str, int]:
    """The most frequent answer, the first of them if several are, and how many gave it."""
    return Counter(answers).most_common(1)[0]


async def drawn(question: cadenza.Context, sampler: cadenza.Sampler, max_tokens: int) -> str:
    async with question.fork() as way:
        return await way.generate(max_tokens, sampler=sampler).text()


async def main(args: cadenza.Arguments) -> None:
    first, temperature = args.get("seed", 0), args.get("temperature", 0.7)
    samplers = [cadenza.Sampler(temperature, seed=first + number) for number in range(args.get("n", 5))]
    async with opened(args) as question:
        await question.prefill()
        texts = await asyncio.gather(*(drawn(question, sampler, args.get("max_tokens", 64)) for sampler in samplers))
    for text in texts:
        print(text)
    answer, count = voted([answer_of(text, args.get("answer", NUMBER)) for text in texts])
    print(f"{answer}  ({count} of {len(texts)} agree)")
