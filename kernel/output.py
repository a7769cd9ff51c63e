"""What a process has said: a bounded log of numbered events that any number of clients can follow."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from dataclasses import dataclass
from itertools import islice

from cadenza.kernel.limits import OUTPUT_RING_BYTES, OUTPUT_RING_EVENTS


@dataclass(frozen=True, slots=True)
class OutputEvent:
    """`kind` is "output" or "error" (text of the log), or "message" (sent to the client). `time`: unix seconds."""

    sequence: int
    time: float
    kind: str
    text: str


class OutputLog:
    """Events from sequence 1 on. The oldest go when more than `capacity_bytes` are kept; readers are told how many."""

    def __init__(self, capacity_bytes: int = OUTPUT_RING_BYTES) -> None:
        self._capacity_bytes = capacity_bytes
        self._events: deque[OutputEvent] = deque()
        self._kept_bytes = 0
        self._next = 1
        self._closed = False
        self._followers: set[asyncio.Future[None]] = set()
        self.total_bytes = 0

    def write(self, kind: str, text: str) -> None:
        size = len(text.encode(errors="replace"))
        self._events.append(OutputEvent(self._next, time.time(), kind, text))
        self._next += 1
        self._kept_bytes += size
        self.total_bytes += size
        while self._too_much():
            self._kept_bytes -= len(self._events.popleft().text.encode(errors="replace"))
        self._tell_followers()

    def _too_much(self) -> bool:
        count = len(self._events)
        return count > OUTPUT_RING_EVENTS or (self._kept_bytes > self._capacity_bytes and count > 1)

    def read(self, after: int) -> tuple[list[OutputEvent], int]:
        """Events with a sequence above `after`, and how many such are no longer kept."""
        first = self._events[0].sequence if self._events else self._next
        lost = max(0, first - after - 1)
        newest = list(islice(reversed(self._events), max(0, self._next - 1 - after)))
        return newest[::-1], lost

    async def changed(self, after: int) -> None:
        """Returns when there is an event above `after`, or when no more will come."""
        while self._next - 1 <= after and not self._closed:
            follower: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._followers.add(follower)
            try:
                await follower
            finally:
                self._followers.discard(follower)

    def close(self) -> None:
        """No more events will come. Idempotent."""
        self._closed = True
        self._tell_followers()

    def _tell_followers(self) -> None:
        for follower in self._followers:
            if not follower.done():
                follower.set_result(None)
