"""Who waits for what: what programs say when they block, since when, and what may be expected of it.

A call begins when a wait first names its handle and ends with the wait that answers it: programs decode beside their
calls, so one call may span several waits, and one wait several calls.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cadenza.kernel.durations import Forecast, ToolTimes, certain

if TYPE_CHECKING:
    from cadenza.kernel.process import Process


class Intent(NamedTuple):
    """What a program says of a handle that it waits for. `expected`: seconds from when it says so; `certain`, of a
    timer, if they are no guess."""

    handle: int
    tool: str
    expected: float | None = None
    certain: bool = False


class _Call(NamedTuple):
    tool: str
    started: float
    expected: float | None
    certain: bool


_NO_CALLS: dict[int, _Call] = {}


class Waiting:
    """One program that is blocked on calls: `tools`, the first `since` seconds on the loop's clock ago."""

    __slots__ = ("_every", "_forecasts", "changes", "pages", "process", "recomputable", "since", "tools")

    def __init__(self, process: Process, tools: tuple[str, ...], since: float, forecasts: Sequence[Forecast],
                 every: bool) -> None:  # fmt: skip
        self.process = process
        self.tools = tools
        self.since = since
        self.pages: NDArray[np.int32] | None = None          # of its files, when `changes` was theirs
        self.changes = 0
        self.recomputable = False
        self._forecasts = forecasts
        self._every = every

    def __str__(self) -> str:
        return (" and " if self._every else " or ").join(dict.fromkeys(self.tools))

    def remaining(self, now: float) -> float:
        """Seconds until it goes on, expected: with the last of its calls, or with the first."""
        left = [forecast.remaining(now) for forecast in self._forecasts]
        return max(left) if self._every else min(left)

    def within(self, now: float, seconds: float) -> float:
        """The probability that it goes on in the next `seconds`."""
        product = 1.0
        for forecast in self._forecasts:
            chance = forecast.within(now, seconds)
            product *= chance if self._every else 1.0 - chance
        return product if self._every else 1.0 - product


class Waits:
    """The programs that wait now. `changed` is called when one begins or ends to."""

    def __init__(self) -> None:
        self.times = ToolTimes()
        self.waiting: dict[Process, Waiting] = {}
        self.changed: Callable[[], None] = lambda: None
        self.changes = 0                     # counts them
        self._calls: dict[Process, dict[int, _Call]] = {}

    def begin(self, process: Process, intents: Sequence[Intent], *, every: bool) -> None:
        """`process` blocks on what `intents`, at least one, name."""
        now = asyncio.get_running_loop().time()
        calls = self._calls.setdefault(process, {})
        for intent in intents:
            if intent.handle not in calls:
                calls[intent.handle] = _Call(intent.tool, now, intent.expected, intent.certain)
        named = [calls[intent.handle] for intent in intents]
        forecasts = [self._forecast(process, call) for call in named]
        self.waiting[process] = Waiting(process, tuple(call.tool for call in named), now, forecasts, every)
        self._note(process)

    def end(self, process: Process, ready: Iterable[int]) -> None:
        """`process` goes on: the handles in `ready` have been answered. Idempotent."""
        if self.waiting.pop(process, None) is None:
            return
        now, calls = asyncio.get_running_loop().time(), self._calls[process]
        for handle in ready:
            call = calls.pop(handle, None)
            if call is not None and not call.certain:
                self.times.observe(process.owner, call.tool, now - call.started, call.expected)
        self._note(process)

    def closed(self, process: Process, handle: int, *, ended: bool) -> None:
        """A handle is gone. `ended`: it was a timer, so what it was said to stand for is a function of the program's
        own, and over; other calls are cancelled by it, which tells nothing of how long they take."""
        call = self._calls.get(process, _NO_CALLS).pop(handle, None)
        if call is not None and ended and not call.certain:
            now = asyncio.get_running_loop().time()
            self.times.observe(process.owner, call.tool, now - call.started, call.expected)

    def forget(self, process: Process) -> None:
        """It has ended; what it waited for tells nothing."""
        self.waiting.pop(process, None)
        self._calls.pop(process, None)
        self._note(process)

    def _note(self, process: Process) -> None:
        """Who holds no files is of no interest to who decides on memory."""
        if len(process.files):
            self.changes += 1
            self.changed()

    def _forecast(self, process: Process, call: _Call) -> Forecast:
        if call.certain and call.expected is not None:
            return certain(call.started + call.expected)
        return self.times.forecast(process.owner, call.tool, call.started, call.expected)

    def statistics(self) -> dict[str, float]:
        return {"waiting_for_tools": len(self.waiting)}
