"""Other ways to share steps, at the seam of the kernel's own batcher: what work-conserving batching is measured by."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from cadenza.kernel.batcher import Share
from cadenza.kernel.passes import Work


def ready(work: Iterable[Work], tokens: int) -> list[Share]:
    """Whole passes that could go now, who waited longest first; of an input as much as a step takes."""
    wanting = [(each, count) for each in work if (count := each.wanted())]
    return sorted(((each, min(count, tokens)) for each, count in wanting), key=lambda share: share[0].turn)


def packed(shares: list[Share], tokens: int, rows: int) -> list[Share]:
    """As many of them as fit into a step."""
    chosen: list[Share] = []
    for work, count in shares[:rows]:
        count = min(count, tokens)
        if not count:
            break
        tokens -= count
        chosen.append((work, count))
    return chosen


@dataclass(slots=True)
class Eager:
    """One pass a step, as it comes."""

    step_tokens: int

    def choose(self, work: Iterable[Work], now: float) -> list[Share]:
        return ready(work, self.step_tokens)[:1]

    def again(self, now: float) -> float | None:
        return None


@dataclass(slots=True)
class CountOnly:
    """So many passes a step, once there are as many; fewer only when nobody else is left."""

    step_tokens: int
    passes: int

    def choose(self, work: Iterable[Work], now: float) -> list[Share]:
        alive = list(work)
        shares = ready(alive, self.step_tokens)
        if len(shares) < min(self.passes, len(alive)):
            return []
        return packed(shares, self.step_tokens, self.passes)

    def again(self, now: float) -> float | None:
        return None


@dataclass(slots=True)
class TimeOnly:
    """All passes that are there, every so many seconds: the first of them has waited so long."""

    step_tokens: int
    step_rows: int
    seconds: float
    _due: float | None = field(default=None, init=False)

    def choose(self, work: Iterable[Work], now: float) -> list[Share]:
        shares = ready(work, self.step_tokens)
        if shares and self._due is None:
            self._due = now + self.seconds
        if not shares or self._due is None or now < self._due - 1e-9:
            return []
        self._due = None
        return packed(shares, self.step_tokens, self.step_rows)

    def again(self, now: float) -> float | None:
        return self._due
