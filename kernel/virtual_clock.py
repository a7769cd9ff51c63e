"""A clock that does not wait: an event loop whose time jumps to the next timer as soon as nothing else is left to do.

Engine, pager, schedulers and policies take their time from the loop that they run on. Under this one they are a
simulator of themselves: the same objects, in an order that depends on nothing but their inputs.
"""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


class _Jump(selectors.SelectSelector):
    """Waits for files by letting the time pass that it may wait for. Raises RuntimeError when that is for ever."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None:
            raise RuntimeError("everything waits, and nothing is going to happen")
        self.now += timeout
        return []


class VirtualClock(asyncio.SelectorEventLoop):
    """Begins at 0 seconds. Nothing from outside reaches it: no sockets, no threads, no signals."""

    def __init__(self) -> None:
        self._jump = _Jump()
        super().__init__(self._jump)

    def time(self) -> float:
        return self._jump.now


def simulate(main: Coroutine[Any, Any, T]) -> T:
    """`asyncio.run` in virtual time."""
    with asyncio.Runner(loop_factory=VirtualClock) as runner:
        return runner.run(main)
