"""Pages of a list: sorted by a key, so that a page follows the one before whatever came or went in between."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Callable, Sequence
from typing import TypeVar

from google.protobuf.message import Message

from cadenza.kvfs.errors import Invalid
from cadenza.server.limits import PAGE_BYTES, PAGE_SIZE, PAGE_SIZE_MOST

T = TypeVar("T")
M = TypeVar("M", bound=Message)
Key = list[float | str]


def page(
    objects: Sequence[T], key: Callable[[T], Key], message: Callable[[T], M], page_size: int, page_token: str
) -> tuple[list[M], str]:
    """The messages of one page and the token of the next, "" if there is none. `key` is unique to an object. A page
    has at least one object if any is left. Raises Invalid for a token that is not ours."""
    after = _key(page_token)
    ordered = sorted((o for o in objects if after is None or key(o) > after), key=key)
    size = min(page_size or PAGE_SIZE, PAGE_SIZE_MOST)
    messages: list[M] = []
    room = PAGE_BYTES
    for shown in ordered[:size]:
        answer = message(shown)
        room -= answer.ByteSize()
        if messages and room < 0:
            break
        messages.append(answer)
    more = len(messages) < len(ordered)
    return messages, _token(key(ordered[len(messages) - 1])) if more else ""


def _token(key: Key) -> str:
    return base64.urlsafe_b64encode(json.dumps(key).encode()).decode()


def _key(token: str) -> Key | None:
    if not token:
        return None
    try:
        key = json.loads(base64.b64decode(token, b"-_", validate=True))
    except (binascii.Error, ValueError, RecursionError) as error:
        raise _invalid() from error
    if not isinstance(key, list) or not key or not isinstance(key[0], int | float) or isinstance(key[0], bool):
        raise _invalid()
    if len(key) > 2 or not all(isinstance(part, str) for part in key[1:]):
        raise _invalid()
    return key


def _invalid() -> Invalid:
    return Invalid("page_token is none that this server gave; begin again without one", "page_token")
