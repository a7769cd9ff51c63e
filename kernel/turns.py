"""Whose turn it is to run: the process scheduler's policy, which decides and does nothing else.

    priority ──▶ its users, in turn ──▶ each one's programs, in turn

A user with a thousand programs that have something to do thus delays another's one program by a slice, like any other
user. Of several priorities the highest goes first; but one that was passed over for AGING_SECONDS has a turn.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from cadenza.kernel.limits import AGING_SECONDS

if TYPE_CHECKING:
    from cadenza.kernel.process import Process


class _Level:
    """Programs of one priority, in queues by user; none of those is empty, and none is twice in `turns`."""

    __slots__ = ("passed_over_since", "priority", "queues", "turns")

    def __init__(self, priority: int) -> None:
        self.priority = priority
        self.queues: dict[str, deque[Process]] = {}
        self.turns: deque[deque[Process]] = deque()
        self.passed_over_since: float | None = None


class Turns:
    """Programs that have something to do; the same ones at the same times are given the same turns."""

    def __init__(self) -> None:
        self._levels: dict[int, _Level] = {}                 # by priority; none is empty
        self._first: _Level | None = None                    # the first of the levels, mostly the only one

    def __bool__(self) -> bool:
        return self._first is not None

    def __len__(self) -> int:
        return sum(len(queue) for level in self._levels.values() for queue in level.turns)

    def add(self, process: Process) -> None:
        """To the end of its user's queue."""
        level = self._first
        if level is None or level.priority != process.priority:
            level = self._level(process.priority)
        queue = level.queues.get(process.owner)
        if queue is not None:
            queue.append(process)
        else:
            queue = level.queues[process.owner] = deque((process,))
            level.turns.append(queue)

    def take(self, now: float) -> Process | None:
        """Whose turn it is. `now`: seconds that never go back."""
        level = self._first
        if level is None:
            return None
        if len(self._levels) > 1:
            level = self._choose(now)
        turns = level.turns
        queue = turns[0]
        process = queue.popleft()
        if not queue:
            turns.popleft()
            del level.queues[process.owner]
            if not turns:
                del self._levels[level.priority]
                self._first = next(iter(self._levels.values()), None)
        elif len(turns) > 1:
            turns.rotate(-1)
        return process

    def _level(self, priority: int) -> _Level:
        level = self._levels.get(priority)
        if level is None:
            level = self._levels[priority] = _Level(priority)
            self._first = self._first or level
        return level

    def _choose(self, now: float) -> _Level:
        """The highest, or of those passed over for too long the one that was for longest."""
        chosen, longest = self._levels[max(self._levels)], now - AGING_SECONDS
        for level in self._levels.values():
            since = level.passed_over_since
            if since is None:
                level.passed_over_since = now
            elif since <= longest:
                chosen, longest = level, since
        chosen.passed_over_since = now
        return chosen
