"""The synchronous agents: the model speaks, its calls are run, it is told what they returned, and speaks again.

`parallel`: the calls of one turn run side by side, and the model waits for all of them; else one after the other, and
only the first of a turn is run.
"""

from __future__ import annotations

import asyncio
import json

from cadenza import Context, Sampler, events
from cadenza.tools import BARE, TAGGED

from .executor import LIMIT_SECONDS, SLOTS, Executor, Job, Order, longest_first
from .outcome import Outcome
from .toolbox import Toolbox

CALL = "<|call|>"
MOST_TURNS = 64


class Synchronous:
    """On the same tools as the asynchronous agent, by chat turns."""

    def __init__(
        self,
        tools: Toolbox,
        *,
        parallel: bool = False,
        slots: int = SLOTS,
        order: Order = longest_first,
        limit_seconds: float = LIMIT_SECONDS,
        max_tokens: int = 4096,
        sampler: Sampler | None = None,
    ) -> None:
        self.manner = "Functions all at once" if parallel else "Functions one by one"
        self._tools = tools
        self._parallel = parallel
        self._slots, self._order, self._limit_seconds = slots, order, limit_seconds
        self._max_tokens, self._sampler = max_tokens, sampler

    async def act(self, context: Context) -> Outcome:
        began, outcome, left = events.now(), Outcome(turns=0), self._max_tokens
        done = asyncio.Event()
        executor = Executor(self._tools, lambda job: done.set(), slots=self._slots if self._parallel else 1,
                            order=self._order, limit_seconds=self._limit_seconds)  # fmt: skip
        try:
            while True:
                generation = context.generate(max(1, left), sampler=self._sampler)
                said = await generation.text()
                outcome.turns += 1
                outcome.tokens += len(generation.tokens)
                left -= len(generation.tokens)
                words, codes = calls_in(said)
                outcome.text += words
                if not codes or generation.finish != "stop-token" or outcome.turns >= MOST_TURNS:
                    outcome.finish = "ended" if generation.finish == "stop-token" and not codes else "length"
                    break
                jobs = [executor.submit(None, code) for code in (codes if self._parallel else codes[:1])]
                await self._all(jobs, done)
                outcome.jobs += jobs
                for job in jobs:
                    context.tool(job.value or "")
        finally:
            executor.close()
        outcome.seconds = events.now() - began
        return outcome

    async def _all(self, jobs: list[Job], done: asyncio.Event) -> None:
        while any(job.value is None for job in jobs):
            await done.wait()
            done.clear()


def calls_in(said: str) -> tuple[str, list[str]]:
    """The words before the calls, and the code of each: `<|call|>CODE` as the bundled model writes them, or the JSON
    objects of other models."""
    if CALL in said:
        words, *codes = said.split(CALL)
        return words, [code.strip() for code in codes]
    whole = BARE.fullmatch(said)
    found = [whole[1]] if whole else TAGGED.findall(said)
    codes = [code for text in found if (code := code_of(text))]
    return (TAGGED.sub("", said), codes) if codes else (said, [])


def code_of(text: str) -> str:
    """The call of a JSON object with `name` and `arguments` or `parameters`; nothing when it is none."""
    try:
        value = json.loads(text)
    except ValueError:
        return ""
    named = value.get("arguments", value.get("parameters", {})) if isinstance(value, dict) else None
    if not isinstance(named, dict) or not isinstance(value.get("name"), str):
        return ""
    return f"{value['name']}({', '.join(f'{name}={argument!r}' for name, argument in named.items())})"
