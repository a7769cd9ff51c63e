"""Answers that are not there yet: Suspensions (kernel/wasm/seams.py) other than `events.wait`'s own."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from cadenza.kernel.handles import Wait, Waitable
from cadenza.kernel.runs import Run
from cadenza.kernel.wasm.seams import Suspension


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
