"""Lanes: the numbers under which a device remembers the last token of each living decode."""

from __future__ import annotations

import numpy as np

from cadenza.kernel.device.batch import Int32
from cadenza.kvfs.errors import LimitExceeded

NONE = np.zeros(0, np.int32)


class Lanes:
    """A free list of 0 … count−1. A lane given back may be taken again at once: steps keep their order."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._free = list(range(count - 1, -1, -1))
        self._forgotten: list[int] = []

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

    def give_back(self, lane: int, *, has_history: bool = False) -> None:
        self._free.append(lane)
        if has_history:
            self._forgotten.append(lane)

    def take_forgotten(self) -> Int32:
        """Lanes given back since the last time whose histories the device need not keep."""
        if not self._forgotten:
            return NONE
        forgotten, self._forgotten = self._forgotten, []
        return np.array(forgotten, np.int32)
