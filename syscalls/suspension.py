"""Answers that are not there yet: Suspensions (kernel/wasm/seams.py) other than `events.wait`'s own."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

from cadenza.kernel.handles import Wait, Waitable, WaitOne
from cadenza.kernel.process import Process
from cadenza.kernel.runs import Run
from cadenza.kernel.trace import TraceRecord
from cadenza.kernel.waits import Intent
from cadenza.kernel.wasm.seams import Suspension

# What a program waits for when it waits for somebody's next word.
NO_TOOLS = frozenset({"message", "signal", "child", "timer"})


class Later(Suspension):
    """The guest is blocked until `work` is done; its error, if it has one, becomes the guest's."""

    def __init__(self, work: Awaitable[Any]) -> None:
        self._task = asyncio.ensure_future(work)

    def subscribe(self, wake: Callable[[], None]) -> None:
        self._task.add_done_callback(lambda task: None if task.cancelled() else wake())

    def answer(self) -> Any:
        return self._task.result()

    def abandon(self) -> None:
        self._task.cancel()


class Expecting(Suspension):
    """A wait for what the device has no part in: while it lasts, the memory policy knows what it is for."""

    def __init__(self, process: Process, wait: Wait | WaitOne, intents: list[Intent], *, every: bool = False,
                 beside: bool = False) -> None:  # fmt: skip
        """`beside`: the program waits for the device as well."""
        self._process, self._wait, self._intents, self._every = process, wait, intents, every
        self._beside = beside
        self._record: TraceRecord | None = None

    def subscribe(self, wake: Callable[[], None]) -> None:
        process = self._process
        if all(intent.tool in NO_TOOLS for intent in self._intents):
            process.place = 0                # what comes next is asked for by somebody who comes now
        process.waits.begin(process, self._intents, every=self._every)
        if not self._beside:
            self._record = process.trace.begin_wait(process.waiting_for)
        self._wait.subscribe(wake)

    def answer(self) -> list[int]:
        ready = self._wait.answer()
        self._end(ready)
        return ready

    def abandon(self) -> None:
        self._end(())
        self._wait.abandon()

    def _end(self, ready: Iterable[int]) -> None:
        self._process.waits.end(self._process, ready)
        if self._record is not None:
            self._record.until, self._record = self._process.trace.clock(), None


class NextToken(WaitOne):
    """A wait for one run, whose answer is the token that came."""

    __slots__ = ("_process", "_run")

    def __init__(self, process: Process, run: Run) -> None:
        self._process = process
        self._waitable = self._run = run

    def answer(self) -> Any:
        return take_next(self._process, self._run)


def take_next(process: Process, run: Run) -> int:
    token = run.take_next()
    if token >= 0:
        process.tokens += 1
    return token


class Settling(Suspension):
    """A run was stopped while it was preempted: the guest is blocked until its file is what it would have been."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._wait = Wait([0], [run], every=True)

    def subscribe(self, wake: Callable[[], None]) -> None:
        self._run.unsignal()
        self._wait.subscribe(wake)

    def answer(self) -> None:
        self._wait.answer()

    def abandon(self) -> None:
        self._wait.abandon()


def settled(waitable: Waitable) -> Settling | None:
    """None at once, as nearly always; else when a stopped run has come to its end."""
    return Settling(waitable) if isinstance(waitable, Run) and not waitable.over else None


def now_or_later(value: Any) -> Any:
    """A value as it is; an awaitable as a Suspension."""
    return Later(value) if isinstance(value, Awaitable) else value
