"""What clients send in chunks: whole, checked against its header, and so many at a time."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import re
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Any, Protocol

from cadenza.kvfs.errors import Invalid, LimitExceeded
from cadenza.server.limits import UPLOADS_PER_USER

DIGEST = re.compile(r"[0-9a-f]{64}")
HASHED_INLINE_BYTES = 64 << 10             # a tenth of a millisecond or so


class Header(Protocol):
    """What an upload begins with."""

    digest: str                             # SHA-256 of the data, hex
    size_bytes: int


class Uploads:
    """How many each user has under way."""

    def __init__(self) -> None:
        self._under_way: Counter[str] = Counter()

    @contextmanager
    def of(self, user: str) -> Iterator[None]:
        """Raises LimitExceeded."""
        if self._under_way[user] >= UPLOADS_PER_USER:
            raise LimitExceeded(
                f"{UPLOADS_PER_USER} uploads of yours are under way, the limit; wait for one to end", "uploads_per_user"
            )
        self._under_way[user] += 1
        try:
            yield
        finally:
            self._under_way[user] -= 1
            if not self._under_way[user]:
                del self._under_way[user]


async def uploaded_header(requests: AsyncIterator[Any]) -> Any:
    """The header of the first message; whether its digest can be one has been checked. Raises Invalid."""
    async for request in requests:
        if request.WhichOneof("part") == "header":
            if not DIGEST.fullmatch(request.header.digest):
                raise Invalid("digest must be the SHA-256 of the data in 64 lower-case hexadecimal digits", "digest")
            return request.header
        break
    raise Invalid("the first message of an upload must be its header", "header")


async def uploaded_data(requests: AsyncIterator[Any], header: Header) -> bytes:
    """The chunks in one piece, as long as the header says and with its digest. Never holds more than that."""
    data = bytearray()
    hasher = hashlib.sha256()
    async for request in requests:
        if request.WhichOneof("part") != "chunk":
            raise Invalid("after its header an upload must hold chunks only", "chunk")
        if len(data) + len(request.chunk) > header.size_bytes:
            raise Invalid(f"the upload goes on after the {header.size_bytes} bytes its header says", "size_bytes")
        data += request.chunk
        await _hash(hasher, request.chunk)
    if len(data) < header.size_bytes:
        raise Invalid(
            f"the upload ended after {len(data)} of the {header.size_bytes} bytes its header says", "size_bytes"
        )
    digest = hasher.hexdigest()
    if not hmac.compare_digest(digest, header.digest):
        raise Invalid(f"the data has digest {digest}, the header says {header.digest}; upload it again", "digest")
    return bytes(data)


async def _hash(hasher: hashlib._Hash, chunk: bytes) -> None:
    """Large chunks are hashed on another thread: the event loop is the kernel's."""
    if len(chunk) > HASHED_INLINE_BYTES:
        await asyncio.to_thread(hasher.update, chunk)
    else:
        hasher.update(chunk)
