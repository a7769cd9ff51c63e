"""Errors on the wire: each CadenzaError becomes its gRPC status, with details that a program can act on.

    every error       ErrorInfo      reason: the errno in upper case, domain "cadenza", metadata: limit or field
    Invalid           BadRequest     one violation, if the error names a field
    LimitExceeded     QuotaFailure   one violation, whose subject is the limit
"""

from __future__ import annotations

import grpc
from google.protobuf import any_pb2
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2

from cadenza.kvfs.errors import CadenzaError, Internal, Invalid, LimitExceeded
from cadenza.server.limits import STATUS_CHARACTERS

DOMAIN = "cadenza"


def rpc_status(error: CadenzaError) -> status_pb2.Status:
    """The google.rpc.Status of an error."""
    message = _shortened(error.message)
    details = [_packed(detail) for detail in _details(error, message)]
    code: int = grpc.StatusCode[error.status].value[0]
    return status_pb2.Status(code=code, message=message, details=details)


def internal(incident: str) -> Internal:
    """What a client is told of an error of ours: nothing but where the operator finds it."""
    return Internal(f"internal error, incident {incident}; the daemon's log has the cause under that number")


def _details(error: CadenzaError, message: str) -> list[Message]:
    info = error_details_pb2.ErrorInfo(reason=error.errno.upper().replace("-", "_"), domain=DOMAIN)
    details: list[Message] = [info]
    if isinstance(error, Invalid) and error.field:
        info.metadata["field"] = error.field
        violation = error_details_pb2.BadRequest.FieldViolation(field=error.field, description=message)
        details.append(error_details_pb2.BadRequest(field_violations=[violation]))
    if isinstance(error, LimitExceeded):
        info.metadata["limit"] = error.limit
        quota = error_details_pb2.QuotaFailure.Violation(subject=error.limit, description=message)
        details.append(error_details_pb2.QuotaFailure(violations=[quota]))
    return details


def _packed(detail: Message) -> any_pb2.Any:
    packed = any_pb2.Any()
    packed.Pack(detail)
    return packed


def _shortened(message: str) -> str:
    """Messages are sent as headers, which are bounded in bytes, and escaped: up to 3 bytes for each byte of UTF-8."""
    if len(message.encode(errors="replace")) <= STATUS_CHARACTERS:
        return message.encode(errors="replace").decode()
    return message.encode(errors="replace")[: STATUS_CHARACTERS - 3].decode(errors="ignore") + "…"
