"""How long tools take: a distribution for each tool of a user, and what follows from it for a call that is under way.

Durations are counted in buckets a sixteenth of an octave wide. Of a call that has lasted `elapsed` it is asked how much
longer it will last; what has been seen to end earlier tells nothing of that (its hazard, bucket by bucket). A program's
own guess counts as much as guesses of this tool have been worth: the ratios of durations to guesses have a distribution
too.
"""

from __future__ import annotations

import math
from collections import OrderedDict

import numpy as np

from cadenza.kernel.limits import TOOLS_PER_USER

LEAST_SECONDS = 1e-4                  # below it, all are one
BUCKETS_PER_OCTAVE = 16
BUCKETS = 512                         # up to 10^-4 · 2^32 seconds, 5 days
ENOUGH = 3                            # calls, before their distribution is believed


class Durations:
    """Of one tool, or of one tool's ratios (dimensionless)."""

    __slots__ = ("_counts", "_means", "_survivors", "seen")

    def __init__(self) -> None:
        self._counts = np.zeros(BUCKETS, np.int64)
        self._survivors: list[int] = []      # of each bucket, how many are beyond it; made when asked for
        self._means: list[float] = []        # and their mean
        self.seen = 0

    def observe(self, seconds: float) -> None:
        self._counts[_bucket(seconds)] += 1
        self._survivors = []
        self.seen += 1

    def survivors(self, elapsed: float) -> float:
        """How many lasted longer than `elapsed`; those in its bucket are taken to lie evenly between its edges."""
        if not self._survivors:
            self._sum_up()
        bucket = _bucket(elapsed)
        return float(self._survivors[bucket] + self._counts[bucket] * _rest(bucket, elapsed))

    def remaining(self, elapsed: float) -> float:
        """The mean of what is left after `elapsed`; for a call that outlasts all that were seen, as long again."""
        left = self.survivors(elapsed)
        if left <= 0:
            return elapsed
        bucket = _bucket(elapsed)
        beyond, here = self._survivors[bucket], self._counts[bucket] * _rest(bucket, elapsed)
        middle = (max(elapsed, _edge(bucket - 1)) + _edge(bucket)) / 2
        return max(0.0, float(beyond * self._means[bucket] + here * middle) / left - elapsed)

    def within(self, elapsed: float, seconds: float) -> float:
        """The probability that it ends in the next `seconds`."""
        left = self.survivors(elapsed)
        if left <= 0:
            return seconds / (elapsed + seconds + 1e-9)
        return max(0.0, 1.0 - self.survivors(elapsed + seconds) / left)

    def _sum_up(self) -> None:
        beyond = self._counts.sum() - np.cumsum(self._counts)
        seconds = (self._counts * _MIDDLES).sum() - np.cumsum(self._counts * _MIDDLES)
        self._survivors = beyond.tolist()
        self._means = (seconds / np.maximum(beyond, 1)).tolist()


class Forecast:
    """Of one call: what is expected at any time while it lasts."""

    __slots__ = ("_durations", "_factor", "_known", "started")

    def __init__(self, started: float, durations: Durations | None, factor: float, known: float | None) -> None:
        """Durations count in units of `factor` seconds. `known`: when it ends, if that is certain."""
        self.started = started
        self._durations, self._factor, self._known = durations, factor, known

    def remaining(self, now: float) -> float:
        """Seconds until it ends, expected. Of what nothing is known: as long as it has lasted, and a little."""
        if self._known is not None:
            return max(0.0, self._known - now)
        elapsed = max(0.0, now - self.started)
        if self._durations is None:
            return elapsed + self._factor
        return self._durations.remaining(elapsed / self._factor) * self._factor

    def within(self, now: float, seconds: float) -> float:
        """The probability that it ends in the next `seconds`."""
        if self._known is not None:
            return float(self._known <= now + seconds)
        elapsed = max(0.0, now - self.started)
        if self._durations is None:
            return seconds / (elapsed + self._factor + seconds)
        return self._durations.within(elapsed / self._factor, seconds / self._factor)


def certain(end: float) -> Forecast:
    """Of what ends at a time that is known."""
    return Forecast(end, None, 1.0, end)


class ToolTimes:
    """What is known of every tool, by (user, tool): one user's calls tell nothing of another's."""

    def __init__(self) -> None:
        self._seconds: dict[str, OrderedDict[str, tuple[Durations, Durations]]] = {}

    def observe(self, user: str, tool: str, seconds: float, expected: float | None = None) -> None:
        """A call has ended that its program had guessed to take `expected` seconds."""
        took, ratios = self._of(user, tool)
        took.observe(seconds)
        if expected:
            ratios.observe(seconds / expected)

    def forecast(self, user: str, tool: str, started: float, expected: float | None = None) -> Forecast:
        """Of a call that began at `started`. A guess is believed, until guesses of this tool have proved otherwise."""
        took, ratios = self._of(user, tool)
        if expected:
            return Forecast(started, ratios if ratios.seen >= ENOUGH else _BELIEVED, expected, None)
        return Forecast(started, took if took.seen >= ENOUGH else None, 1.0, None)

    def mean(self, user: str, tool: str) -> float | None:
        """Seconds; None before it is known."""
        took, _ = self._of(user, tool)
        return took.remaining(0.0) if took.seen >= ENOUGH else None

    def _of(self, user: str, tool: str) -> tuple[Durations, Durations]:
        tools = self._seconds.setdefault(user, OrderedDict())
        if tool not in tools:
            tools[tool] = Durations(), Durations()
            if len(tools) > TOOLS_PER_USER:
                tools.popitem(last=False)
        tools.move_to_end(tool)
        return tools[tool]


def _bucket(seconds: float) -> int:
    if seconds <= LEAST_SECONDS:
        return 0
    return min(BUCKETS - 1, math.ceil(math.log2(seconds / LEAST_SECONDS) * BUCKETS_PER_OCTAVE))


def _edge(bucket: int) -> float:
    """The longest duration that is counted in it."""
    return _EDGES[bucket] if bucket >= 0 else 0.0


def _rest(bucket: int, elapsed: float) -> float:
    """The part of a bucket that lies beyond `elapsed`, which lies in it."""
    low, high = _edge(bucket - 1), _edge(bucket)
    return min(1.0, max(0.0, (high - elapsed) / (high - low)))


_EDGES: list[float] = (LEAST_SECONDS * 2.0 ** (np.arange(BUCKETS) / BUCKETS_PER_OCTAVE)).tolist()
_MIDDLES = LEAST_SECONDS * 2.0 ** ((np.arange(BUCKETS) - 0.5) / BUCKETS_PER_OCTAVE)
_BELIEVED = Durations()
_BELIEVED.observe(1.0)
