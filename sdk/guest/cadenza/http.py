"""HTTP, to the hosts that this program's manifest names and the operator allows.

    # /// cadenza
    # hosts = ["api.example.org"]
    # ///
    response = await cadenza.http.get("https://api.example.org/weather?city=Oslo", timeout=5)
    if response.ok:
        print(response.json()["temperature"])

Redirects are not followed: they are responses, whose `location` may lead to a host that is not granted.
"""

from __future__ import annotations

import json as text_of_json
from base64 import b64decode
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

from wit_world.imports import tools as kernel

from .errors import checked
from .events import Handle

_request = checked(kernel.request)
_take_response = checked(kernel.take_response)
_take_bytes = checked(kernel.take_bytes)

PIECE_BYTES = 262_144       # the most that the kernel hands over at once


@dataclass(frozen=True)
class Response:
    """`headers`: names in lower case; of several with one name, joined by commas. `cut`: the body was longer."""

    status: int
    headers: Mapping[str, str]
    text: str
    size: int
    cut: bool
    content: bytes = b""

    @property
    def ok(self) -> bool:
        """Whether the status is 200 to 299."""
        return 200 <= self.status < 300

    def json(self) -> Any:
        """The body as JSON. Raises ValueError if it is none."""
        return text_of_json.loads(self.text)


async def request(
    method: str, url: str, *, headers: Mapping[str, str] | None = None, params: Mapping[str, object] | None = None,
    body: str = "", json: object = None, timeout: float | None = None, expected: float | None = None,
    binary: bool = False,
) -> Response:
    """Sends a request, answers its response whatever its status.

    `params` are added to the URL; `json` is sent as JSON in place of `body`. `timeout`: seconds, at most ten minutes.
    `expected`: how many it will take, if that is known. `binary`: fetches the bytes of the body too, as `content`.
    Cancelled, the request is given up. Raises Denied (not granted), NotFound (no such host), Closed (it cannot be
    reached, or hung up), Cancelled (the timeout), Invalid, LimitExceeded.
    """
    sent = {name.lower(): value for name, value in (headers or {}).items()}
    if json is not None:
        body = text_of_json.dumps(json)
        sent.setdefault("content-type", "application/json")
    if params:
        url += ("&" if "?" in url else "?") + urlencode({name: str(value) for name, value in params.items()})
    handle = submit(method, url, sent, body, timeout)
    try:
        if expected is not None:
            handle.expect(seconds=expected)      # the kernel knows the host
        await handle
        return take(handle, binary=binary)
    finally:
        handle.close()


async def get(url: str, **options: Any) -> Response:
    """`request("GET", …)`."""
    return await request("GET", url, **options)


async def post(url: str, **options: Any) -> Response:
    """`request("POST", …)`."""
    return await request("POST", url, **options)


def submit(
    method: str, url: str, headers: Mapping[str, str] | None = None, body: str = "", timeout: float | None = None
) -> Handle:
    """The bare call: a handle that is ready when there is a response. Never blocks. Close it."""
    listed = [kernel.Header(name, value) for name, value in (headers or {}).items()]
    nanoseconds = None if timeout is None else int(timeout * 1e9)
    return Handle(_request(kernel.HttpRequest(method, url, listed, body, nanoseconds)))


def take(handle: Handle, *, binary: bool = False) -> Response:
    """What a ready handle of `submit` holds. Never blocks. Raises the error that the request ended with."""
    response = _take_response(handle.number)
    content = b"".join(
        b64decode(_take_bytes(handle.number, first, PIECE_BYTES)) for first in range(0, response.size, PIECE_BYTES)
    ) if binary else b""
    headers: dict[str, str] = {}
    for each in response.headers:
        headers[each.name] = f"{headers[each.name]}, {each.value}" if each.name in headers else each.value
    return Response(response.status, headers, response.text, response.size, response.cut, content)
