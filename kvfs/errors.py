"""Every error of Cadenza, in one tree; the lowest room holds it, since every room raises from it.

    CadenzaError
    ├── Invalid          invalid      INVALID_ARGUMENT     an argument is malformed
    │   └── TooLong      too-long     INVALID_ARGUMENT     more tokens than the model's context holds
    ├── NotFound         not-found    NOT_FOUND            absent, or another user's
    ├── Exists           exists       ALREADY_EXISTS       the name is taken
    ├── Denied           denied       PERMISSION_DENIED    yours, but not allowed so
    │   └── Unauthenticated  denied   UNAUTHENTICATED      no key, or one that is not known
    ├── Busy             busy         FAILED_PRECONDITION  in use by something unfinished
    ├── NotReady         not-ready    FAILED_PRECONDITION  taken before it was ready
    ├── LimitExceeded    limit        RESOURCE_EXHAUSTED   a limit of this process or user
    │   ├── NoPages      no-pages     RESOURCE_EXHAUSTED   the KV pool is full
    │   └── Full         full         RESOURCE_EXHAUSTED   a bounded queue is full
    ├── Cancelled        cancelled    CANCELLED            cancelled before it finished
    ├── Closed           closed       ABORTED              the other end is gone
    ├── Damaged          damaged      DATA_LOSS            what the disk holds is not what was written
    ├── DeviceLost       device-lost  UNAVAILABLE          the device failed
    ├── Unsupported      unsupported  UNIMPLEMENTED        this model or device cannot do that
    └── Internal         internal     INTERNAL             our fault

`errno` is the case of WIT's `types.errno`; `status` the name of the gRPC status code. The message says what, which
object, the limit, and what to do.
"""

from __future__ import annotations

from typing import ClassVar


class CadenzaError(Exception):
    """What every error of Cadenza is. `message` is for a person; `errno` and `status` are for programs."""

    errno: ClassVar[str] = "internal"
    status: ClassVar[str] = "INTERNAL"

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class Invalid(CadenzaError):
    """An argument is malformed. `field` names it, as the caller knows it."""

    errno = "invalid"
    status = "INVALID_ARGUMENT"

    def __init__(self, message: str, field: str = "") -> None:
        super().__init__(message)
        self.field = field


class TooLong(Invalid):
    errno = "too-long"


class NotFound(CadenzaError):
    errno = "not-found"
    status = "NOT_FOUND"


class Exists(CadenzaError):
    errno = "exists"
    status = "ALREADY_EXISTS"


class Denied(CadenzaError):
    errno = "denied"
    status = "PERMISSION_DENIED"


class Unauthenticated(Denied):
    status = "UNAUTHENTICATED"


class Busy(CadenzaError):
    errno = "busy"
    status = "FAILED_PRECONDITION"


class NotReady(CadenzaError):
    errno = "not-ready"
    status = "FAILED_PRECONDITION"


class LimitExceeded(CadenzaError):
    """`limit` is the limit's name in kernel/limits.py, so that a client can act on it."""

    errno = "limit"
    status = "RESOURCE_EXHAUSTED"

    def __init__(self, message: str, limit: str = "") -> None:
        super().__init__(message)
        self.limit = limit


class NoPages(LimitExceeded):
    """`needed` pages could not be taken."""

    errno = "no-pages"

    def __init__(self, message: str, limit: str = "", needed: int = 1) -> None:
        super().__init__(message, limit)
        self.needed = needed


class Full(LimitExceeded):
    errno = "full"


class Cancelled(CadenzaError):
    errno = "cancelled"
    status = "CANCELLED"


class Closed(CadenzaError):
    errno = "closed"
    status = "ABORTED"


class Damaged(CadenzaError):
    errno = "damaged"
    status = "DATA_LOSS"


class DeviceLost(CadenzaError):
    errno = "device-lost"
    status = "UNAVAILABLE"


class Unsupported(CadenzaError):
    errno = "unsupported"
    status = "UNIMPLEMENTED"


class Internal(CadenzaError):
    pass
