"""The program of the comparison: goes on from its prompts, as it is told to, and prints what it said."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence

from speculation.cacheback import Cacheback
from speculation.prompt_lookup import PromptLookup
from speculation.run import Speculation
from speculation.tree import Tree

import cadenza
from cadenza import Context, Run, Sampler, model


class Wrong(Speculation):
    """Drafts that fail."""

    def drafter(self) -> Wrong:
        return self

    def follow(self, tokens: Sequence[int]) -> None:
        """Does not care."""

    def learn(self) -> None:
        """Nor now."""

    def draft(self, size: int) -> Tree:
        return Tree([random.randrange(256) for _ in range(size)], [random.randrange(n + 1) for n in range(size)])


KINDS = {"cacheback": Cacheback, "prompt_lookup": PromptLookup, "wrong": Wrong}


async def main(args: cadenza.Arguments) -> None:
    speculation = KINDS[args.kind]() if args.kind in KINDS else None
    said: list[list[int]] = []
    for prompt in args.prompts:
        async with Context(tokens=model.tokenize(prompt, special=True)) as context:
            sampler = Sampler(args.temperature, seed=len(said))
            decoding = context.decode(args.max_tokens, sampler=sampler, stop_tokens=(), speculation=speculation or Run)
            while await decoding.token() is not None:
                pass
            said.append(decoding.tokens)
    counts = [speculation.passes, speculation.drafted, speculation.accepted] if speculation else [0, 0, 0]
    pace = [speculation.pace.plain_seconds, *speculation.pace.fitted] if speculation else []
    print(json.dumps({"said": said, "counts": counts, "pace": pace}))
