"""What a program can wait for, the table of a process's handles, and the wait itself.

A `Waitable` is ready or not; it tells the one wait that looks at it when it becomes so. A process has one thread of
control, so at most one wait looks at a waitable at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Generic, TypeVar

from cadenza.kernel.wasm.seams import Suspension
from cadenza.kvfs.errors import Cancelled, LimitExceeded, NotFound

Wake = Callable[[], None]
T = TypeVar("T")


class Waitable:
    """Something that a handle names. Subclasses call `signal` and `unsignal`; `close` gives back what it holds. `what`:
    for what a program waits that waits for it, if it says nothing itself; "" when that is the device, which is no wait
    at all for who decides on memory."""

    __slots__ = ("ready", "watcher")
    what = ""

    def __init__(self) -> None:
        self.ready = False
        self.watcher: Wait | WaitOne | None = None

    def signal(self) -> None:
        """Ready from now on. Idempotent."""
        if not self.ready:
            self.ready = True
            if self.watcher is not None:
                self.watcher.notice()

    def unsignal(self) -> None:
        self.ready = False

    def close(self) -> None:
        """Cancels what is under way. Idempotent."""


W = TypeVar("W", bound=Waitable)


class HandleTable:
    """The handles of one process: small numbers, never reused while the process lives."""

    __slots__ = ("_limit", "_next", "_waitables")

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._next = 1
        self._waitables: dict[int, Waitable] = {}

    def __len__(self) -> int:
        return len(self._waitables)

    def __iter__(self) -> Iterator[Waitable]:
        return iter(self._waitables.values())

    def ensure_room(self) -> None:
        """Raises LimitExceeded if another handle would be too many: called before work is begun for one."""
        if len(self._waitables) >= self._limit:
            raise LimitExceeded(
                f"process holds {self._limit} handles, its limit; take or close some first", "handles"
            )

    def add(self, waitable: Waitable) -> int:
        self.ensure_room()
        number = self._next
        self._next += 1
        self._waitables[number] = waitable
        return number

    def find(self, number: int) -> Waitable | None:
        return self._waitables.get(number)

    def get(self, number: int, kind: type[W]) -> W:
        """Raises NotFound if there is no such handle, or if it is of another kind."""
        waitable = self._waitables.get(number)
        if not isinstance(waitable, kind):
            raise NotFound(f"handle {number} is not open as a {kind.__name__.lower()}")
        return waitable

    def close(self, number: int) -> Waitable:
        """Answers what it named, closed."""
        waitable = self._waitables.pop(number, None)
        if waitable is None:
            raise NotFound(f"handle {number} is not open")
        waitable.close()
        return waitable

    def close_all(self) -> None:
        waitables, self._waitables = self._waitables, {}
        for waitable in waitables.values():
            waitable.close()


class Wait(Suspension):
    """One blocked `events.wait`. Answers the numbers of those that were ready when it ended, in the order given."""

    __slots__ = ("_every", "_missing", "_numbers", "_over", "_ready", "_timer", "_waitables", "_wake")

    def __init__(self, numbers: Sequence[int], waitables: Sequence[Waitable], *, every: bool) -> None:
        self._numbers = numbers
        self._waitables = waitables
        self._every = every
        self._missing = 0                    # notices to come before it is worth looking; never more than there will be
        self._wake: Wake | None = None
        self._over = False
        self._ready: list[int] = []
        self._timer: Callable[[], None] | None = None

    def answer_now(self) -> list[int] | None:
        """The answer, if there is something to wait for and it is there: then no one need subscribe."""
        ready = self._ready_numbers()
        return ready if ready and (len(ready) == len(self._numbers) or not self._every) else None

    def subscribe(self, wake: Wake) -> None:
        self._wake = wake
        for waitable in self._waitables:
            waitable.watcher = self
        self._look()

    def expire_with(self, cancel_timer: Callable[[], None]) -> None:
        """Hands over the way to cancel this wait's timer, whose callback is `expire`."""
        self._timer = cancel_timer

    def expire(self) -> None:
        """The timeout has passed."""
        if not self._over:
            self._finish()

    def notice(self) -> None:
        """One of the waitables has become ready."""
        self._missing -= 1
        if self._missing <= 0 and not self._over:
            self._look()

    def answer(self) -> list[int]:
        return self._ready

    def abandon(self) -> None:
        self._wake = None
        if not self._over:
            self._finish()

    def _look(self) -> None:
        """What was ready may have been taken by another since, so readiness is looked at and not counted."""
        missing = {id(w) for w in self._waitables if not w.ready}
        enough = not missing if self._every else len(missing) < len({id(w) for w in self._waitables})
        if enough and self._waitables:
            self._finish()
        else:
            self._missing = len(missing) if self._every else 1

    def _ready_numbers(self) -> list[int]:
        return [n for n, w in zip(self._numbers, self._waitables, strict=True) if w.ready]

    def _finish(self) -> None:
        self._over = True
        self._ready = self._ready_numbers()
        for waitable in self._waitables:
            waitable.watcher = None
        if self._timer is not None:
            self._timer()
        if self._wake is not None:
            self._wake()


class WaitOne(Suspension):
    """A `Wait` for one handle and without a timeout: what most waits are."""

    __slots__ = ("_answer", "_waitable", "_wake")

    def __init__(self, number: int, waitable: Waitable) -> None:
        self._answer = [number]
        self._waitable = waitable
        self._wake: Wake | None = None

    def subscribe(self, wake: Wake) -> None:
        self._wake = wake
        self._waitable.watcher = self

    def notice(self) -> None:
        self._waitable.watcher = None
        if self._wake is not None:
            self._wake()

    def answer(self) -> list[int]:
        return self._answer if self._waitable.ready else []

    def abandon(self) -> None:
        self._wake = None
        self._waitable.watcher = None


class Timer(Waitable):
    """Ready once, `at` on the loop's clock. `cancel` takes the clock's callback back."""

    __slots__ = ("at", "cancel")
    what = "timer"

    def __init__(self, at: float) -> None:
        super().__init__()
        self.at = at
        self.cancel: Callable[[], None] = lambda: None

    def close(self) -> None:
        self.cancel()


def unique(numbers: Iterable[int]) -> list[int]:
    """The numbers without repetition, in order: a handle named twice is one handle."""
    return list(dict.fromkeys(numbers))


class Outcome(Waitable, Generic[T]):
    """A waitable that ends once, with a value or an error, and is taken once."""

    __slots__ = ("_error", "_value")

    def __init__(self) -> None:
        super().__init__()
        self._value: T | None = None
        self._error: Exception | None = None

    def succeed(self, value: T) -> None:
        self._value = value
        self.signal()

    def fail(self, error: Exception) -> None:
        self._error = error
        self.signal()

    def take(self) -> T:
        """Raises the error it ended with, or Cancelled if it has been closed before it ended."""
        if self._error is not None:
            raise self._error
        if self._value is None:
            raise Cancelled("closed before it finished")
        return self._value
