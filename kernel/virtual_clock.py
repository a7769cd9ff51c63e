"""A clock that does not wait: an event loop whose time jumps to the next timer as soon as nothing else is left to do.

Engine, pager, schedulers and policies take their time from the loop that they run on. Under this one they are a
simulator of themselves: the same objects, in an order that depends on nothing but their inputs. So do programs in
Wasm: what they compute takes no time, and while a thread computes for the loop, the clock stands still.
"""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Callable, Coroutine
from concurrent.futures import Executor
from typing import Any, TypeVar, TypeVarTuple, Unpack

T = TypeVar("T")
Ts = TypeVarTuple("Ts")


class _Jump(selectors.SelectSelector):
    """Waits for files by letting the time pass that it may wait for. Raises RuntimeError when that is for ever."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.elsewhere = 0          # calls that threads have not answered yet

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if self.elsewhere and timeout != 0:
            return super().select(None)             # no time passes until a thread has woken the loop
        if timeout is None:
            raise RuntimeError("everything waits, and nothing is going to happen")
        self.now += timeout
        return []


class VirtualClock(asyncio.SelectorEventLoop):
    """Begins at 0 seconds. Nothing from outside reaches it but the answers of its own threads: no sockets, no signals,
    no processes."""

    def __init__(self) -> None:
        self._jump = _Jump()
        super().__init__(self._jump)

    def time(self) -> float:
        return self._jump.now

    def run_in_executor(
        self, executor: Executor | None, func: Callable[[Unpack[Ts]], T], *args: *Ts
    ) -> asyncio.Future[T]:
        answer = super().run_in_executor(executor, func, *args)
        self._jump.elsewhere += 1
        answer.add_done_callback(self._answered)
        return answer

    async def shutdown_default_executor(self, *timeout: Any) -> None:
        self._jump.elsewhere += 1
        try:
            await super().shutdown_default_executor(*timeout)
        finally:
            self._jump.elsewhere -= 1

    def _answered(self, answer: asyncio.Future[Any]) -> None:
        self._jump.elsewhere -= 1


def simulate(main: Coroutine[Any, Any, T]) -> T:
    """`asyncio.run` in virtual time."""
    with asyncio.Runner(loop_factory=VirtualClock) as runner:
        return runner.run(main)
