"""Answers that come from a coroutine: a Suspension (kernel/wasm/seams.py) over an asyncio task."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any


class Later:
    """The guest is blocked until `work` is done; its error, if it has one, becomes the guest's."""

    def __init__(self, work: Awaitable[Any]) -> None:
        self._task = asyncio.ensure_future(work)

    def subscribe(self, wake: Callable[[], None]) -> None:
        self._task.add_done_callback(lambda task: None if task.cancelled() else wake())

    def answer(self) -> Any:
        return self._task.result()

    def abandon(self) -> None:
        self._task.cancel()


def now_or_later(value: Any) -> Any:
    """A value as it is; an awaitable as a Suspension."""
    return Later(value) if isinstance(value, Awaitable) else value
