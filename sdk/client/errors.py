"""What a call raises: the server's errors, with what a program needs to act on them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import grpc
from google.rpc import error_details_pb2
from grpc_status import rpc_status


class ClientError(Exception):
    """`errno` is the server's ("not-found", "limit", …), or the gRPC status in lower case ("unavailable",
    "deadline-exceeded") where no server answered; `message` is for a person. `field` names a malformed field of the
    request, `limit` the limit that is reached; else they are ""."""

    def __init__(self, errno: str, message: str, *, field: str = "", limit: str = "") -> None:
        super().__init__(message)
        self.errno = errno
        self.message = message
        self.field = field
        self.limit = limit


class Invalid(ClientError):
    """A field of the request is malformed."""


class NotFound(ClientError):
    """No such image or process, or it is another user's."""


class Exists(ClientError):
    """The name, or the request id, is taken."""


class Denied(ClientError):
    """Yours, but not allowed so."""


class Unauthenticated(ClientError):
    """The server wants a key, or another one."""


class LimitExceeded(ClientError):
    """A limit is reached; `limit` names it."""


class Closed(ClientError):
    """The process has ended."""


class Unavailable(ClientError):
    """The server cannot be reached, or its device is lost."""


class DeadlineExceeded(ClientError):
    """The call took longer than its timeout."""


CLASSES: dict[grpc.StatusCode, type[ClientError]] = {
    grpc.StatusCode.INVALID_ARGUMENT: Invalid,
    grpc.StatusCode.NOT_FOUND: NotFound,
    grpc.StatusCode.ALREADY_EXISTS: Exists,
    grpc.StatusCode.PERMISSION_DENIED: Denied,
    grpc.StatusCode.UNAUTHENTICATED: Unauthenticated,
    grpc.StatusCode.RESOURCE_EXHAUSTED: LimitExceeded,
    grpc.StatusCode.ABORTED: Closed,
    grpc.StatusCode.UNAVAILABLE: Unavailable,
    grpc.StatusCode.DEADLINE_EXCEEDED: DeadlineExceeded,
}
# Of receipts, which have an errno and no status.
ERRNO_CLASSES: dict[str, type[ClientError]] = {"limit": LimitExceeded, "full": LimitExceeded, "closed": Closed}


def from_call(error: grpc.aio.AioRpcError) -> ClientError:
    """The exception for a failed call."""
    code = error.code()
    made = CLASSES.get(code, ClientError)
    info = _info(error)
    if info is None:
        return made(code.name.lower().replace("_", "-"), error.details() or code.name)
    return made(
        info.reason.lower().replace("_", "-"),
        error.details() or "",
        field=info.metadata.get("field", ""),
        limit=info.metadata.get("limit", ""),
    )


def from_receipt(errno: str, message: str) -> ClientError:
    """The exception for a message that was not delivered."""
    return ERRNO_CLASSES.get(errno, ClientError)(errno, message)


@contextmanager
def translated() -> Iterator[None]:
    """Turns gRPC's exceptions into ours."""
    try:
        yield
    except grpc.aio.AioRpcError as error:
        raise from_call(error) from None


def _info(error: grpc.aio.AioRpcError) -> error_details_pb2.ErrorInfo | None:
    try:
        status = rpc_status.from_call(error)
    except ValueError:  # a proxy has replaced the status: its details say nothing of it
        return None
    for detail in status.details if status is not None else ():
        info = error_details_pb2.ErrorInfo()
        if detail.Unpack(info):
            return info
    return None
