"""The slots of one layout: which are free, and how often each of the others is held."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np

from cadenza.kvfs.errors import LimitExceeded

LONG_RUN = 16                                # so many free slots side by side are worth reading at once


class Slots:
    """Slots 0 … limit−1, of which those below `end` have been used. It counts; the images lie in segments.

    A slot is free, or held at least once. Neighbours are given out together, so that files are read in long runs.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.end = 0
        self.used = 0
        self._holds = np.zeros(0, np.int32)
        self._closed = range(0)

    def can_allocate(self, count: int) -> bool:
        return self.used + count <= self.limit

    def allocate(self, count: int) -> list[int]:
        """`count` slots in ascending order, held once each. Raises LimitExceeded, and then takes none."""
        if not self.can_allocate(count):
            raise LimitExceeded(f"the disk tier holds {self.used} of at most {self.limit} pages, {count} more are "
                                "needed: remove files, or start the daemon with a larger --disk-gib", "disk_pages")
        slots = self._choose(count)
        self.hold(slots)
        return slots

    def hold(self, slots: Sequence[int]) -> None:
        """Once more each; these may be free, as they are when files are found on disk."""
        if not slots:
            return
        self.end = max(self.end, max(slots) + 1)
        if self.end > len(self._holds):
            self._holds = np.concatenate([self._holds, np.zeros(self.end, np.int32)])
        held, times = np.unique(np.asarray(slots), return_counts=True)
        self.used += int(np.count_nonzero(self._holds[held] == 0))
        self._holds[held] += times.astype(np.int32)

    def release(self, slots: Sequence[int]) -> None:
        """Once less each; the last one frees a slot."""
        if not slots:
            return
        held, times = np.unique(np.asarray(slots), return_counts=True)
        assert held[-1] < self.end, f"slot {held[-1]} was never held"
        self._holds[held] -= times.astype(np.int32)
        left = self._holds[held]
        assert left.min() >= 0, f"slot {held[left.argmin()]} is free already"
        self.used -= int(np.count_nonzero(left == 0))

    def holds(self, slot: int) -> int:
        return int(self._holds[slot]) if slot < self.end else 0

    def close_tail(self, least: int) -> int | None:
        """If at least so many slots below `end` are free up to it: where they start. They count as held until
        `open_tail`, so that what lies there can be given back to the disk meanwhile."""
        if self.end < least or self._holds[self.end - least : self.end].any():
            return None
        held = np.flatnonzero(self._holds[: self.end])
        self._closed = range(int(held[-1]) + 1 if len(held) else 0, self.end)
        self.hold(self._closed)
        return self._closed.start

    def open_tail(self) -> None:
        closed, self._closed = self._closed, range(0)
        self.release(closed)
        if self.end == closed.stop:
            self.end = closed.start

    def recount(self, held: Iterable[int]) -> None:
        """Raises AssertionError unless slots are held exactly as often as they are in `held`."""
        found = np.zeros(self.end, np.int32)
        for slot, times in Counter([*held, *self._closed]).items():
            found[slot] = times
        wrong = np.flatnonzero(found != self._holds[: self.end])
        assert not len(wrong), "holds (slot, counted, found): " + ", ".join(
            f"({slot}, {self._holds[slot]}, {found[slot]})" for slot in wrong[:8].tolist())
        assert self.used == np.count_nonzero(found), f"{self.used} slots are counted, {np.count_nonzero(found)} held"

    def _choose(self, count: int) -> list[int]:
        """The shortest run that is long enough; or long runs, then new slots, then what is left."""
        starts, lengths = self._free_runs()
        enough = np.flatnonzero(lengths >= count)
        if len(enough):
            start = int(starts[enough[np.argmin(lengths[enough])]])
            return list(range(start, start + count))
        slots: list[int] = []
        order = np.argsort(-lengths, kind="stable").tolist()
        runs = [range(int(starts[at]), int(starts[at] + lengths[at])) for at in order]
        long = int(np.count_nonzero(lengths >= LONG_RUN))
        for run in [*runs[:long], range(self.end, self.limit), *runs[long:]]:
            slots += run[: count - len(slots)]
        return sorted(slots)

    def _free_runs(self) -> tuple[np.ndarray, np.ndarray]:
        """Below `end`: where each run of free slots starts, and how long it is."""
        if self._below() == 0:
            return np.zeros(0, np.int64), np.zeros(0, np.int64)
        free = np.concatenate([[False], self._holds[: self.end] == 0, [False]])
        edges = np.flatnonzero(free[1:] != free[:-1])
        return edges[::2], edges[1::2] - edges[::2]

    def _below(self) -> int:
        """How many slots below `end` are free."""
        return self.end - self.used
