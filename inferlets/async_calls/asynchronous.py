"""The asynchronous agent: calls run while the model goes on, and interrupt it when they return.

What is decided where the paper leaves it open (AsyncLM, arXiv 2412.07017, section 4):

    a trap with nothing pending and nobody listening     the turn is over, `stuck`
    the end of the text while calls are pending          taken for a trap: what returns lets the model go on
    a call without an id                                 runs; nobody is told what it returns
    an id that is in use                                 the second call is not run, its interrupt says so
    code that is no call, an unknown function            the value says so
    a tool that raises, or takes too long                the value says so
    cancelled (`cancel`)                                 the value says so
    more interrupts than MOST_TOLD_TOKENS at once        the rest goes in behind the next token
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from typing import Literal

from cadenza import Closed, Context, Sampler, Source, events, trace

from .cml import Call, Text, written_interrupt
from .executor import LIMIT_SECONDS, SLOTS, Executor, Job, Order, longest_first
from .outcome import Outcome
from .speech import Speech
from .toolbox import Toolbox

IN_USE = "error: this id is in use"
USER = "user"


class Asynchronous:
    """One turn at a time. `resume`: whether a trap ends with any interrupt, or when all calls have returned; words of
    somebody else end it always. `listen`: whose messages interrupt, by the id that they come under."""

    manner = "Functions that interrupt"

    def __init__(
        self,
        tools: Toolbox,
        *,
        resume: Literal["any", "all"] = "any",
        slots: int = SLOTS,
        order: Order = longest_first,
        limit_seconds: float = LIMIT_SECONDS,
        max_tokens: int = 4096,
        sampler: Sampler | None = None,
        listen: Sequence[tuple[str, Source]] = (),
    ) -> None:
        self._tools = tools
        self._resume = resume
        self._slots, self._order, self._limit_seconds = slots, order, limit_seconds
        self._max_tokens, self._sampler = max_tokens, sampler
        self._listen = listen
        self._outcome = Outcome()
        self._speech: Speech | None = None
        self._executor: Executor | None = None
        self._came = asyncio.Event()
        self._held: list[Job] = []               # returned during a trap that waits for all

    async def act(self, context: Context) -> Outcome:
        began = events.now()
        self._outcome = Outcome()
        self._came = asyncio.Event()
        self._speech = Speech(context, max_tokens=self._max_tokens, sampler=self._sampler)
        self._executor = Executor(self._tools, self._returned, slots=self._slots, order=self._order,
                                  limit_seconds=self._limit_seconds)  # fmt: skip
        ears = [asyncio.ensure_future(self._hear(identity, source)) for identity, source in self._listen]
        try:
            await self._converse(self._speech, self._executor)
        finally:
            self._executor.close()
            self._speech.close()
            for ear in ears:
                ear.cancel()
        outcome = self._outcome
        outcome.interrupts, outcome.tokens = self._speech.interrupts, self._speech.tokens
        outcome.seconds = events.now() - began
        return outcome

    def interrupt(self, identity: str, value: str) -> None:
        """Somebody says something: the user, a timer, another program. Never blocks."""
        trace.instant(identity, value)
        self._tell_held()
        self._tell(identity, value)

    def cancel(self, identity: str) -> bool:
        """Ends the call of this id; the model is told. Answers whether there was one."""
        for job in self._executor.pending if self._executor else ():
            if job.id == identity and self._executor:
                self._executor.cancel(job)
                return True
        return False

    # --- the turn ---

    async def _converse(self, speech: Speech, executor: Executor) -> None:
        outcome = self._outcome
        while True:
            event = await speech.next()
            if isinstance(event, Text):
                outcome.text += event.text
            elif isinstance(event, Call):
                self._call(executor, event)
            elif event is not None:
                outcome.traps += 1
            if not speech.pause:
                continue
            if speech.pause == "length":
                outcome.finish = "length"
                return
            if not self._expects(executor):
                outcome.finish = "stuck" if speech.pause == "trap" else "ended"
                return
            await self._until_told(speech)

    def _expects(self, executor: Executor) -> bool:
        """Whether something can still come: after an end only the calls that will be told, after a trap anybody."""
        pending = self._held or any(job.id is not None for job in executor.pending)
        trapped = self._speech is not None and self._speech.pause == "trap"
        return bool(pending) or (trapped and bool(self._listen))

    async def _until_told(self, speech: Speech) -> None:
        with trace.span("trap"):
            while speech.pause:
                self._came.clear()
                await self._came.wait()

    def _call(self, executor: Executor, call: Call) -> None:
        if call.id is not None and (call.id in self._names or any(job.id == call.id for job in executor.pending)):
            self._tell(call.id, IN_USE)
            return
        self._outcome.jobs.append(executor.submit(call.id, call.code))

    @property
    def _names(self) -> set[str]:
        return {identity for identity, _ in self._listen}

    # --- what comes in ---

    def _returned(self, job: Job) -> None:
        if job.id is None or self._speech is None or self._executor is None:
            return
        self._held.append(job)
        others = any(other.id is not None for other in self._executor.pending)
        if not (self._speech.pause and self._resume == "all" and others):
            self._tell_held()

    def _tell_held(self) -> None:
        held, self._held = self._held, []
        for job in held:
            self._tell(job.id or "", job.value or "")

    def _tell(self, identity: str, value: str) -> None:
        assert self._speech is not None, "nobody is speaking"
        self._speech.tell(written_interrupt(identity, value))
        self._came.set()

    async def _hear(self, identity: str, source: Source) -> None:
        with contextlib.suppress(Closed):
            async for text in source:
                self.interrupt(identity, text)
