"""The event loop under `async def main`: ordinary asyncio, over the one system call that blocks.

There is one thread and no file system, socket or subprocess; what a program waits for are the kernel's handles and
the clock. So a turn of the loop is short: run the callbacks that are ready; when there are none, one `events.wait`
over every handle that some task awaits, with the earliest timer as its timeout.

A task that awaits a handle while nothing else is alive blocks at once, without a future and without a turn.
"""

from __future__ import annotations

import asyncio
import heapq
import math
import sys
from asyncio import events as asyncio_events
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Generator
from contextvars import Context
from typing import Any, TypeVar, TypeVarTuple, Unpack

from componentize_py_types import Err
from wit_world.imports import events

from .errors import Closed, error_of

ANY = events.Until.ANY
T = TypeVar("T")
Ts = TypeVarTuple("Ts")

WAIT_HANDLES = 1024        # the most handles that the kernel accepts in one wait
LONGEST_WAIT_SECONDS = 86_400    # the kernel's timers run no longer than 7 days
ROTATION_NS = 2_000_000    # how long one window of so many is waited for, when there are more
DEAD_TIMERS = 64           # cancelled timers that may lie in the heap before it is swept
STARVATION_TURNS = 16      # turns with callbacks ready before handles and timers are looked at nevertheless


def wait_any(numbers: list[int], timeout_ns: int | None, intents: list[events.Intent]) -> list[int]:
    """Blocks the whole program until one of the handles is ready; answers those that are."""
    try:
        return events.wait(numbers, ANY, timeout_ns, intents)
    except Err as refusal:
        raise error_of(refusal) from None


class Loop(asyncio.AbstractEventLoop):
    """An event loop of one program. Not for threads: there are none."""

    def __init__(self) -> None:
        self._ready: deque[asyncio.Handle] = deque()
        self._timers: list[asyncio.TimerHandle] = []
        # Those who await a handle, by its number. Never holds an empty list.
        self._awaited: dict[int, list[asyncio.Future[None]]] = {}
        self._intents: dict[int, events.Intent] = {}
        self._dead_timers = 0
        self._turns = 0
        self._window = 0
        self._closed = False

    @property
    def idle(self) -> bool:
        """Whether nothing else is alive: the task that runs may block the program."""
        return not (self._ready or self._awaited or self._timers)

    # --- the kernel's handles ---

    def until_ready(self, number: int, intent: events.Intent | None = None) -> Generator[Any, None, None]:
        """Suspends the running task until the handle is ready. Cancelling it leaves the handle open."""
        if self.idle:
            wait_any([number], None, [intent] if intent else [])
            return
        future: asyncio.Future[None] = asyncio.Future(loop=self)
        self._awaited.setdefault(number, []).append(future)
        if intent:
            self._intents[number] = intent
        try:
            yield from future
        finally:
            self._leave(number, future)

    def _leave(self, number: int, future: asyncio.Future[None]) -> None:
        waiters = self._awaited.get(number)
        if waiters and future in waiters:
            waiters.remove(future)
            if not waiters:
                del self._awaited[number]
                self._intents.pop(number, None)

    def _wait(self, timeout_ns: int | None) -> None:
        """Blocks until a handle is ready or the time is over; makes those who awaited it ready."""
        numbers = list(self._awaited)
        if len(numbers) > WAIT_HANDLES:
            numbers, timeout_ns = self._rotate(numbers, timeout_ns)
        for number in wait_any(numbers, timeout_ns, list(self._intents.values())):
            self._intents.pop(number, None)
            for future in self._awaited.pop(number):
                if not future.done():
                    future.set_result(None)

    def forget(self, number: int) -> None:
        """The handle is about to be closed: those who await it get `Closed`."""
        if number not in self._awaited:
            return
        self._intents.pop(number, None)
        for future in self._awaited.pop(number):
            if not future.done():
                future.set_exception(Closed(f"handle {number} was closed by this program while it was awaited"))

    def _rotate(self, numbers: list[int], timeout_ns: int | None) -> tuple[list[int], int]:
        """The next window over more handles than one wait takes, and how long to stay with it."""
        self._window = (self._window + WAIT_HANDLES) % len(numbers)
        window = (numbers[self._window :] + numbers[: self._window])[:WAIT_HANDLES]
        self._intents.clear()
        return window, ROTATION_NS if timeout_ns is None else min(timeout_ns, ROTATION_NS)

    # --- turns ---

    def _turn(self) -> None:
        ready = self._ready
        self._turns += 1
        if not ready:
            self._wait(self._until_timer())
        elif self._awaited and self._turns % STARVATION_TURNS == 0:
            self._wait(0)
        if self._timers:
            self._ring()
        for _ in range(len(ready)):
            handle = ready.popleft()
            if not handle._cancelled:
                handle._run()

    def _until_timer(self) -> int | None:
        """Nanoseconds until the earliest timer, rounded up: after such a wait it is due. None when there is none.
        Raises RuntimeError when all would sleep."""
        while self._timers and self._timers[0]._cancelled:
            heapq.heappop(self._timers)
            self._dead_timers -= 1
        if self._timers:
            left = self._timers[0].when() - self.time()
            return math.ceil(min(max(left, 0.0), LONGEST_WAIT_SECONDS) * 1e9)
        if not self._awaited:
            raise RuntimeError("deadlock: every task waits for something that no task, handle or timer brings about")
        return None

    def _ring(self) -> None:
        """Makes the timers that are due ready."""
        now = self.time()
        while self._timers and (self._timers[0]._cancelled or self._timers[0].when() <= now):
            timer = heapq.heappop(self._timers)
            if timer._cancelled:
                self._dead_timers -= 1
            else:
                timer._scheduled = False  # type: ignore[attr-defined]
                self._ready.append(timer)

    def run_until_complete(self, future: Awaitable[T]) -> T:
        """Runs until `future` is done; answers its result or raises its exception."""
        if asyncio_events._get_running_loop() is not None:
            raise RuntimeError("this program's event loop is already running: await instead")
        hooks = sys.get_asyncgen_hooks()
        asyncio_events._set_running_loop(self)
        sys.set_asyncgen_hooks(finalizer=self._finalize)
        try:
            task: asyncio.Future[T] = asyncio.ensure_future(future, loop=self)
            while not task.done():
                self._turn()
        finally:
            sys.set_asyncgen_hooks(*hooks)
            asyncio_events._set_running_loop(None)
        return task.result()

    def run(self, main: Coroutine[Any, Any, T]) -> T:
        """Runs a whole program: `main`, then whatever tasks are left are cancelled, as `asyncio.run` does."""
        try:
            return self.run_until_complete(main)
        finally:
            left = list(asyncio.all_tasks(self))
            for task in left:
                task.cancel()
            if left:
                self.run_until_complete(self._gathered(left))
            self.close()

    async def _gathered(self, tasks: list[asyncio.Task[Any]]) -> None:
        await asyncio.gather(*tasks, return_exceptions=True)
        for task in tasks:
            if not task.cancelled() and (error := task.exception()) is not None:
                self.call_exception_handler({"message": "a task failed while it was cancelled", "exception": error})

    def _finalize(self, generator: AsyncGenerator[Any, Any]) -> None:
        if not self._closed:
            self.create_task(generator.aclose())

    # --- what asyncio asks of a loop ---

    def call_soon(
        self, callback: Callable[[Unpack[Ts]], object], *args: *Ts, context: Context | None = None
    ) -> asyncio.Handle:
        handle = asyncio.Handle(callback, args, self, context)
        self._ready.append(handle)
        return handle

    def call_later(
        self, delay: float, callback: Callable[[Unpack[Ts]], object], *args: *Ts, context: Context | None = None
    ) -> asyncio.TimerHandle:
        return self.call_at(self.time() + delay, callback, *args, context=context)

    def call_at(
        self, when: float, callback: Callable[[Unpack[Ts]], object], *args: *Ts, context: Context | None = None
    ) -> asyncio.TimerHandle:
        timer = asyncio.TimerHandle(when, callback, args, self, context)
        heapq.heappush(self._timers, timer)
        timer._scheduled = True  # type: ignore[attr-defined]
        return timer

    def call_soon_threadsafe(
        self, callback: Callable[[Unpack[Ts]], object], *args: *Ts, context: Context | None = None
    ) -> asyncio.Handle:
        return self.call_soon(callback, *args, context=context)

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        """Dead timers are dropped when they come up, or all at once when they are most of the heap."""
        self._dead_timers += handle._scheduled  # type: ignore[attr-defined]
        if self._dead_timers > DEAD_TIMERS and self._dead_timers * 2 > len(self._timers):
            self._timers = [timer for timer in self._timers if not timer._cancelled]
            heapq.heapify(self._timers)
            self._dead_timers = 0

    def time(self) -> float:
        """Seconds of the kernel's monotonic clock."""
        return events.now() / 1e9

    def create_future(self) -> asyncio.Future[Any]:
        return asyncio.Future(loop=self)

    def create_task(self, coro: Any, **options: Any) -> asyncio.Task[Any]:
        return asyncio.Task(coro, loop=self, **options)

    def run_in_executor(
        self, executor: object, func: Callable[[Unpack[Ts]], T], *args: *Ts
    ) -> asyncio.Future[T]:
        raise RuntimeError("a program has one thread: call the function itself, or write it as `async def`")

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        """Writes what went wrong where nobody awaits it to the program's error stream."""
        error = context.get("exception")
        print(context.get("message", "an error in the event loop"), file=sys.stderr)
        if error is not None:
            sys.excepthook(type(error), error, error.__traceback__)

    def get_debug(self) -> bool:
        return False

    def is_running(self) -> bool:
        return asyncio_events._get_running_loop() is self

    def is_closed(self) -> bool:
        return self._closed

    def close(self) -> None:
        self._closed = True
        self._ready.clear()
        self._timers.clear()

    async def shutdown_asyncgens(self) -> None:
        """Nothing is left: generators are closed when they are dropped."""

    async def shutdown_default_executor(self, timeout: float | None = None) -> None:
        """There is none."""


def new() -> Loop:
    """A loop. What it lacks of asyncio's (sockets, files, subprocesses) raises NotImplementedError."""
    return Loop()  # type: ignore[abstract]


def current() -> Loop | None:
    """The loop that is running; None outside `async` code."""
    loop = asyncio_events._get_running_loop()
    return loop if isinstance(loop, Loop) else None


def running() -> Loop:
    """The loop that is running. Raises RuntimeError outside `async` code."""
    loop = asyncio_events._get_running_loop()
    if not isinstance(loop, Loop):
        raise RuntimeError("only `async` code that Cadenza runs can await the kernel; elsewhere use cadenza.wait")
    return loop
