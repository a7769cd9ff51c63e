"""What the tasks of a program are like, and how long the next one would take in either manner of calling functions."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import cycle, islice, zip_longest
from statistics import mean
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .executor import Job
    from .outcome import Outcome

Shape = tuple[int, ...]
"""Of a task: how many calls could be made in each of its rounds, each round after the results of the one before."""

Chains = list[list[float]]
"""Of a task: the times of its calls, in chains in which each needs the result of the one before it."""

SHAPES_KEPT, TIMES_KEPT = 32, 64
SMOOTHING = 0.3
MARKS, MARKS_PARALLEL, TRAP = 4, 1, 2
"""Tokens beside a call's code: [CALL] id [HEAD] … [END], and <|call|> …; those of a trap."""


@dataclass
class Profile:
    """What tasks were like. It may outlive an agent, and serve many."""

    call_tokens: float = 20.0
    token_seconds: float = 0.01
    execution_seconds: float = 0.1
    off: deque[float] = field(default_factory=lambda: deque(maxlen=TIMES_KEPT))     # times, over what was expected
    shapes: deque[Shape] = field(default_factory=lambda: deque(maxlen=SHAPES_KEPT))
    tasks: int = 0

    def ratio(self, expected: Sequence[float] = ()) -> float:
        """Execution over generation, of a call."""
        return mean(expected or [self.execution_seconds]) / (self.call_tokens * self.token_seconds)

    def asynchronous_is_faster(self, expected: Sequence[float] = ()) -> bool:
        """For tasks like those so far, whose calls are expected to take such times. Before any of them: if a call takes
        longer to run than to say."""
        if not self.shapes:
            return self.ratio(expected) > 1.0
        times = cycle(self._likely(expected))
        tasks = [chains_of(shape, times) for shape in islice(cycle(self.shapes), SHAPES_KEPT)]
        return sum(self.parallel_seconds(task) - self.asynchronous_seconds(task) for task in tasks) > 0.0

    def _likely(self, expected: Sequence[float]) -> list[float]:
        """Times as they may really come: as far off what is expected as they were lately."""
        known, off = expected or [self.execution_seconds], self.off or [1.0]
        return [known[number % len(known)] * off[number % len(off)] for number in range(max(len(known), len(off)))]

    def parallel_seconds(self, chains: Chains) -> float:
        """Every round is said, then it waits for its longest call."""
        said = (self.call_tokens + MARKS_PARALLEL) * self.token_seconds
        rounds = ([time for time in each if time is not None] for each in zip_longest(*chains))
        return sum(len(calls) * said + self.token_seconds + max(calls) for calls in rounds)

    def asynchronous_seconds(self, chains: Chains) -> float:
        """Of the calls that can be said, first the one on which most depends; a trap when there is none."""
        said, trap, now = (self.call_tokens + MARKS) * self.token_seconds, TRAP * self.token_seconds, 0.0
        left = [list(chain) for chain in chains]
        sayable, running = [chain for chain in left if chain], list[tuple[float, list[float]]]()
        while sayable or running:
            if sayable:
                chain = max(sayable, key=sum)
                sayable.remove(chain)
                now += said
                running.append((now + chain.pop(0), chain))
            else:
                now = max(now + trap, min(ends for ends, _ in running))
            sayable += [chain for ends, chain in running if ends <= now and chain]
            running = [each for each in running if each[0] > now]
        return now

    # --- learning ---

    def learn(self, outcome: Outcome, tokens: Sequence[int], *, parallel: bool) -> None:
        """From a task that is done. `tokens`: of the code of each of its calls."""
        self.tasks += 1
        jobs = outcome.jobs
        if not jobs:
            return
        self.call_tokens = self._moved(self.call_tokens, mean(tokens))
        self.execution_seconds = self._moved(self.execution_seconds, mean(map(_execution, jobs)))
        self.off.extend(_execution(job) / job.expected for job in jobs if job.expected > 0.0)
        if parallel:
            waited = sum(max(map(_execution, jobs)) for jobs in rounds(jobs))
            self.token_seconds = self._moved(self.token_seconds, (outcome.seconds - waited) / max(1, outcome.tokens))
            self.shapes.append(tuple(len(jobs) for jobs in rounds(jobs)))
        elif len(jobs) > 1:                              # two calls without a pause in between: the shortest times
            spoken = [(later.asked - job.asked) / (count + MARKS)
                      for job, later, count in zip(jobs, jobs[1:], tokens[1:], strict=False)]
            self.token_seconds = self._moved(self.token_seconds, min(spoken))

    def _moved(self, known: float, seen: float) -> float:
        """The first task replaces what was guessed, each one after it moves what is known."""
        return known + max(SMOOTHING, 1.0 / self.tasks) * (seen - known)


def chains_of(shape: Shape, times: Iterator[float]) -> Chains:
    """As many chains as the widest round has calls, as long as there are rounds for them."""
    return [[next(times) for calls in shape if calls > chain] for chain in range(max(shape))]


def rounds(jobs: Iterable[Job]) -> list[list[Job]]:
    """The calls of each turn: a turn begins when all calls of the one before it have ended."""
    found: list[list[Job]] = []
    for job in jobs:
        if found and job.asked < max(each.ended or 0.0 for each in found[-1]):
            found[-1].append(job)
        else:
            found.append([job])
    return found


def _execution(job: Job) -> float:
    return (job.ended or 0.0) - job.asked
