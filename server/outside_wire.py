"""What the daemon and its outside process say to each other: frames of a JSON head and raw bytes, over a pipe.

    daemon ──▶ {"hosts", "servers"}                                 once, first
               {"id", "tool", "arguments"}  {"id", "request"} body  a call
               {"cancel": id}
    child  ──▶ {"catalog": [[name, description, schema], …]}        when it is ready, and when it changes
               {"id", "failed", "cut"} text                         answers, and errors
               {"id", "status", "headers", "cut"} body
               {"id", "errno", "message", "limit"}
"""

from __future__ import annotations

import asyncio
import json
import struct
from typing import Any

from cadenza.kernel.http_request import Header, HttpRequest, HttpResponse, Url
from cadenza.kernel.tools import ToolResult
from cadenza.kvfs.errors import CadenzaError, Cancelled, Closed, Denied, Internal, Invalid, LimitExceeded, NotFound
from cadenza.server.limits import FRAME_BYTES

SIZES = struct.Struct(">II")
KINDS: tuple[type[CadenzaError], ...] = (Invalid, NotFound, Denied, Closed, Cancelled, Internal)
ERRORS = {kind.errno: kind for kind in KINDS}

Head = dict[str, Any]
Frame = tuple[Head, bytes]


def frame(head: Head, body: bytes = b"") -> bytes:
    text = json.dumps(head).encode()
    return SIZES.pack(len(text), len(body)) + text + body


async def read_frame(reader: asyncio.StreamReader) -> Frame:
    """Raises IncompleteReadError at the end, ValueError for what is no frame."""
    head, body = SIZES.unpack(await reader.readexactly(SIZES.size))
    if max(head, body) > FRAME_BYTES:
        raise ValueError(f"a frame of {head} and {body} bytes; each part has at most {FRAME_BYTES}")
    return json.loads(await reader.readexactly(head)), await reader.readexactly(body)


def of_request(request: HttpRequest) -> Frame:
    url = request.url
    return {"request": [request.method, url.scheme, url.host, url.port, url.target, request.headers]}, request.body


def to_request(head: Head, body: bytes) -> HttpRequest:
    method, scheme, host, port, target, headers = head["request"]
    return HttpRequest(method, Url(scheme, host, port, target), [Header(*each) for each in headers], body)


def of_answer(answer: ToolResult | HttpResponse) -> Frame:
    if isinstance(answer, ToolResult):
        return {"failed": answer.failed, "cut": answer.cut}, answer.text.encode(errors="replace")
    return {"status": answer.status, "headers": answer.headers, "cut": answer.cut}, answer.body


def of_error(error: CadenzaError) -> Head:
    return {"errno": error.errno, "message": error.message, "limit": getattr(error, "limit", "")}


def to_answer(head: Head, body: bytes) -> ToolResult | HttpResponse:
    """Raises the error that is one."""
    if "errno" in head:
        if head["errno"] == LimitExceeded.errno:
            raise LimitExceeded(head["message"], head["limit"])
        raise ERRORS.get(head["errno"], Internal)(head["message"])
    if "status" in head:
        return HttpResponse(head["status"], [Header(*each) for each in head["headers"]], body, head["cut"])
    return ToolResult(body.decode(), head["failed"], head["cut"])
