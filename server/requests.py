"""Requests that are done once: a client that repeats one under the same id gets the first one's answer."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from cadenza.kvfs.errors import Exists, Invalid
from cadenza.server.limits import REQUEST_ID_BYTES, REQUEST_IDS_PER_USER

T = TypeVar("T")


@dataclass(slots=True, eq=False)
class _Entry(Generic[T]):
    content: bytes
    task: asyncio.Task[T]
    waiters: int = 0


class Requests(Generic[T]):
    """For each user, the requests of one method that have an id: those under way, and the latest that were answered.

    Work goes on while anyone waits for it: it is cancelled when the last one has left. What failed is forgotten, so
    that it can be tried again.
    """

    def __init__(self, method: str, per_user: int = REQUEST_IDS_PER_USER) -> None:
        self._method = method
        self._per_user = per_user
        self._users: dict[str, OrderedDict[str, _Entry[T]]] = {}

    async def once(self, user: str, request_id: str, content: bytes, work: Callable[[], Awaitable[T]]) -> T:
        """What `work` answers, or answered before. `content` stands for everything else in the request. Raises Exists
        if the id was used with another content, Invalid if it is too long."""
        if not request_id:
            return await work()
        if len(request_id.encode()) > REQUEST_ID_BYTES:
            raise Invalid(f"request_id has more than {REQUEST_ID_BYTES} bytes; 16 random ones do", "request_id")
        entry = self._entry(user, request_id, content, work)
        entry.waiters += 1
        try:
            return await asyncio.shield(entry.task)
        finally:
            entry.waiters -= 1
            self._settle(user, request_id, entry)

    def _entry(self, user: str, request_id: str, content: bytes, work: Callable[[], Awaitable[T]]) -> _Entry[T]:
        entries = self._users.setdefault(user, OrderedDict())
        entry = entries.get(request_id)
        if entry is None:
            entry = entries[request_id] = _Entry(content, asyncio.ensure_future(_run(work)))
            if len(entries) > self._per_user:
                entries.popitem(last=False)
        elif entry.content != content:
            raise Exists(f"request_id {request_id!r} was used for another {self._method}; choose a new one")
        entries.move_to_end(request_id)
        return entry

    def _settle(self, user: str, request_id: str, entry: _Entry[T]) -> None:
        """Forgets what failed, and cancels what nobody waits for any more."""
        if entry.task.done() and not entry.task.cancelled() and entry.task.exception() is None:
            return
        if entry.task.done() or not entry.waiters:
            entry.task.cancel()
            if self._users[user].get(request_id) is entry:
                del self._users[user][request_id]


async def _run(work: Callable[[], Awaitable[T]]) -> T:
    return await work()
