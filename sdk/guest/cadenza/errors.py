"""What the kernel answers when it refuses, as exceptions.

    Error
    ├── Invalid          an argument is malformed
    │   └── TooLong      more tokens than the model's context holds
    ├── NotFound         absent, or another user's
    ├── Exists           the name is taken
    ├── Denied           yours, but not allowed so
    ├── Busy             in use by something that has not finished
    ├── NotReady         taken before `wait` said that it is ready
    ├── LimitExceeded    a limit of this process or user
    │   ├── NoPages      the KV pool is full
    │   └── Full         a bounded queue is full; nothing was sent
    ├── Cancelled        cancelled before it finished: its time was over
    ├── Closed           the other end is gone
    ├── Damaged          what the disk holds is not what was written to it
    ├── DeviceLost       the device failed; what it held is gone
    ├── Unsupported      this model or device cannot do that
    └── Internal         the kernel's fault
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import ClassVar, ParamSpec, TypeVar

from componentize_py_types import Err
from wit_world.imports import types

P = ParamSpec("P")
T = TypeVar("T")


class Error(Exception):
    """Every refusal of the kernel. `errno` is its code, the exception's text says what, which and what to do."""

    errno: ClassVar[str] = "internal"


class Invalid(Error):
    errno = "invalid"


class TooLong(Invalid):
    errno = "too-long"


class NotFound(Error):
    errno = "not-found"


class Exists(Error):
    errno = "exists"


class Denied(Error):
    errno = "denied"


class Busy(Error):
    errno = "busy"


class NotReady(Error):
    errno = "not-ready"


class LimitExceeded(Error):
    errno = "limit"


class NoPages(LimitExceeded):
    errno = "no-pages"


class Full(LimitExceeded):
    errno = "full"


class Cancelled(Error):
    errno = "cancelled"


class Closed(Error):
    errno = "closed"


class Damaged(Error):
    errno = "damaged"


class DeviceLost(Error):
    errno = "device-lost"


class Unsupported(Error):
    errno = "unsupported"


class Internal(Error):
    pass


CLASSES: dict[str, type[Error]] = {
    kind.errno: kind
    for kind in (
        Invalid, TooLong, NotFound, Exists, Denied, Busy, NotReady, LimitExceeded, NoPages, Full, Cancelled, Closed,
        DeviceLost, Unsupported, Internal,
    )
}  # fmt: skip


def error_of(refusal: Err[types.Error]) -> Error:
    """The exception that stands for what the kernel answered."""
    error = refusal.value
    return CLASSES.get(error.errno.name.lower().replace("_", "-"), Internal)(error.message)


def checked(call: Callable[P, T]) -> Callable[P, T]:
    """The system call `call`, raising `Error` where the kernel refuses."""

    @functools.wraps(call)
    def checked_call(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return call(*args, **kwargs)
        except Err as refusal:
            raise error_of(refusal) from None

    return checked_call
