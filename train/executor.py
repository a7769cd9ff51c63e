"""What runs the calls while the model speaks: a simulation under a virtual clock.

Calls take random times and few may run at once; of those that wait, the longest starts first (AsyncLM, section 5).
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass, field

SHORTEST_SECONDS, LONGEST_SECONDS = 0.001, 1.0
SLOTS = (1, 2, 4, 8)


def random_seconds(source: random.Random) -> float:
    """Between 1 ms and 1 s, each order of magnitude as likely as the next."""
    return math.exp(source.uniform(math.log(SHORTEST_SECONDS), math.log(LONGEST_SECONDS)))


@dataclass
class Executor:
    """At most `slots` calls run at once. Times are seconds since the start of the dialogue."""

    slots: int
    now: float = 0.0
    waiting: list[tuple[float, str]] = field(default_factory=list)
    running: list[tuple[float, str]] = field(default_factory=list)
    ended: list[str] = field(default_factory=list)

    def submit(self, identity: str, seconds: float) -> None:
        """A call that will run for so long, from now or from when a slot is free."""
        self.waiting.append((seconds, identity))
        self._start()

    def advance(self, seconds: float) -> None:
        """Lets time pass."""
        until = self.now + seconds
        while self.running and min(self.running)[0] <= until:
            self._end_one()
        self.now = until

    def wait(self, until: float = math.inf) -> None:
        """Lets time pass until a call has ended, or until then, whichever is first; one of both must come."""
        if self.ended:
            return
        if self.running and min(self.running)[0] <= until:
            self._end_one()
        else:
            self.now = max(self.now, until)

    def take(self) -> list[str]:
        """The calls that have ended since the last time, in their order."""
        taken, self.ended = self.ended, []
        return taken

    @property
    def idle(self) -> bool:
        return not (self.waiting or self.running or self.ended)

    def _end_one(self) -> None:
        first = min(self.running)
        self.running.remove(first)
        self.now = max(self.now, first[0])
        self.ended.append(first[1])
        self._start()

    def _start(self) -> None:
        while self.waiting and len(self.running) < self.slots:
            longest = max(self.waiting)
            self.waiting.remove(longest)
            self.running.append((self.now + longest[0], longest[1]))
