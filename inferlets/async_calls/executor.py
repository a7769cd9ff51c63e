"""What runs the calls while the model speaks: few at once, the most urgent first, none for ever.

The kernel is told what is run and how long that should take (a timer's intent), so that it knows what this program
waits for when the model has nothing to say. Source of the orders: AsyncLM, arXiv 2412.07017, section 5.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import cadenza
from cadenza import events, trace

from .toolbox import Toolbox

SLOTS = 8
LIMIT_SECONDS = 60.0
RESULT_CHARACTERS = 4096
PENDING = 256
"""Calls that wait for a slot."""

TIMED_OUT, TOO_MANY, CANCELLED = "error: timed out", "error: too many calls", "error: cancelled"
CUT = " … (cut)"

Order = Callable[["Job"], float]
"""How urgent a call is: the greatest goes first."""


@dataclass(eq=False)
class Job:
    """One call. Times are seconds of the program's clock; `value` is None until it has ended."""

    id: str | None
    code: str
    expected: float
    asked: float
    began: float | None = None
    ended: float | None = None
    value: str | None = None
    task: asyncio.Task[None] | None = field(default=None, repr=False)

    @property
    def track(self) -> str:
        """Where a timeline shows it."""
        return self.id or self.code.partition("(")[0]


def first_come(job: Job) -> float:
    return -job.asked


def longest_first(job: Job) -> float:
    return job.expected


def critical_path(after: Mapping[str, Sequence[str]], tools: Toolbox) -> Order:
    """The longest way to the end goes first: `after` says which functions need the result of one. No circles."""
    def seconds(name: str) -> float:
        tool = tools.get(name)
        own = tool.seconds or 0.0 if tool else 0.0
        return own + max(map(seconds, after.get(name, ())), default=0.0)
    return lambda job: seconds(tool.name) if (tool := tools.of(job.code)) else 0.0


class Executor:
    """`ended` is called with each job that has a value, in the order in which they end."""

    def __init__(self, tools: Toolbox, ended: Callable[[Job], None], *, slots: int = SLOTS,
                 order: Order = longest_first,
                 limit_seconds: float = LIMIT_SECONDS, result_characters: int = RESULT_CHARACTERS) -> None:  # fmt: skip
        self._tools = tools
        self._ended = ended
        self._slots = slots
        self._order = order
        self._limit_seconds = limit_seconds
        self._result_characters = result_characters
        self._waiting: list[Job] = []
        self._running: list[Job] = []

    @property
    def pending(self) -> list[Job]:
        """Those that have not ended."""
        return self._running + self._waiting

    def submit(self, id: str | None, code: str) -> Job:
        """Starts it, now or when a slot is free. Never blocks, raises nothing: what is wrong becomes its value."""
        tool = self._tools.of(code)
        job = Job(id, code, (tool.seconds or 0.0) if tool else 0.0, events.now())
        if len(self._waiting) >= PENDING:
            self._end(job, TOO_MANY)
            return job
        self._waiting.append(job)
        self._start()
        return job

    def cancel(self, job: Job) -> None:
        """It ends at once, with an error for a value. Idempotent."""
        if job.value is None:
            self._end(job, CANCELLED)

    def close(self) -> None:
        """Cancels everything; nobody is told."""
        self._ended = lambda job: None
        for job in self.pending:
            self.cancel(job)

    def _start(self) -> None:
        while self._waiting and len(self._running) < self._slots:
            job = max(self._waiting, key=self._order)
            self._waiting.remove(job)
            self._running.append(job)
            job.began = events.now()
            trace.mark("begin", job.track, job.code)
            job.task = asyncio.ensure_future(self._run(job))

    async def _run(self, job: Job) -> None:
        tool = self._tools.of(job.code)
        limit = cadenza.timer(self._limit_seconds)
        if tool is not None:
            limit.expect(tool.name, tool.seconds)
        work = asyncio.ensure_future(self._tools.run(job.code))
        late = asyncio.ensure_future(_until(limit))
        try:
            await asyncio.wait({work, late}, return_when=asyncio.FIRST_COMPLETED)
            value = work.result() if work.done() else TIMED_OUT
            if tool is not None and work.done() and job.began is not None:
                tool.took(events.now() - job.began)
        finally:
            work.cancel()
            late.cancel()
            limit.close()
        self._end(job, value)

    def _end(self, job: Job, value: str) -> None:
        job.value, job.ended = self._capped(value), events.now()
        if job.began is not None:
            trace.mark("end", job.track, job.value)
        for jobs in (self._running, self._waiting):
            with contextlib.suppress(ValueError):
                jobs.remove(job)
        if job.task is not None and job.task is not asyncio.current_task():
            job.task.cancel()
        self._ended(job)
        self._start()

    def _capped(self, value: str) -> str:
        return value if len(value) <= self._result_characters else value[: self._result_characters] + CUT


async def _until(handle: events.Handle) -> None:
    await handle
