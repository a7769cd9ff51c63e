"""Lanes: the numbers under which a device remembers the last token of each living decode."""

from __future__ import annotations

from cadenza.kvfs.errors import LimitExceeded


class Lanes:
    """A free list of 0 … count−1. A lane given back may be taken again at once: steps keep their order."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._free = list(range(count - 1, -1, -1))

    @property
    def taken(self) -> int:
        return self._count - len(self._free)

    def ensure_room(self) -> None:
        """Raises LimitExceeded if no lane is free."""
        if not self._free:
            raise LimitExceeded(f"{self._count} decodes are alive, the most there may be; wait for one to end", "lanes")

    def take(self) -> int:
        self.ensure_room()
        return self._free.pop()

    def give_back(self, lane: int) -> None:
        self._free.append(lane)
