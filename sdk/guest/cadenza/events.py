"""Handles: what the kernel answers at once to a call that takes time; and the clock."""

from __future__ import annotations

from collections.abc import Generator, Iterable
from typing import Any, Literal

from componentize_py_types import Err
from wit_world.imports import events as kernel

from . import loop
from .errors import checked

_wait = checked(kernel.wait)
_timer = checked(kernel.timer)


class Handle:
    """Something under way in the kernel, known to it by `number`. `await handle` returns when it is ready.

    What a ready handle holds is fetched by whoever made it. Awaiting does not close it.
    """

    __slots__ = ("intent", "number")

    def __init__(self, number: int) -> None:
        self.number = number
        self.intent: kernel.Intent | None = None

    def expect(self, tool: str = "", seconds: float | None = None) -> Handle:
        """Tells the kernel what is waited for: the tool's name and how many seconds it may take. Answers itself.

        The kernel keeps, swaps or discards the KV of a waiting program accordingly.
        """
        nanoseconds = None if seconds is None else int(seconds * 1e9)
        self.intent = kernel.Intent(self.number, tool, nanoseconds)
        return self

    def __await__(self) -> Generator[Any, None, None]:
        return loop.running().until_ready(self.number, self.intent)

    def close(self) -> None:
        """Gives the handle back; what was under way is cancelled, who awaits it gets `Closed`. Never blocks."""
        current = loop.current()
        if current is not None:
            current.forget(self.number)
        try:  # noqa: SIM105 - a `with` costs as much as the call
            kernel.close(self.number)
        except Err:
            pass

    def __repr__(self) -> str:
        return f"Handle({self.number})"


def wait(
    handles: Iterable[Handle], until: Literal["any", "all"] = "any", timeout: float | None = None
) -> list[Handle]:
    """Blocks the whole program, its other tasks too, until any or all handles are ready or `timeout` seconds passed.

    Answers those that are ready, in the order given. In `async` code await the handles instead.
    """
    known = {handle.number: handle for handle in handles}
    intents = [handle.intent for handle in known.values() if handle.intent]
    nanoseconds = None if timeout is None else int(timeout * 1e9)
    wanted = kernel.Until.ALL if until == "all" else kernel.Until.ANY
    return [known[number] for number in _wait(list(known), wanted, nanoseconds, intents)]


def timer(seconds: float) -> Handle:
    """A handle that is ready once, `seconds` from now. In `async` code `asyncio.sleep` is simpler."""
    return Handle(_timer(int(seconds * 1e9)))


def now() -> float:
    """Seconds of a clock that never goes back."""
    return kernel.now() / 1e9


def wall_clock() -> float:
    """Seconds since 1970-01-01 UTC."""
    return kernel.wall_clock() / 1e9
