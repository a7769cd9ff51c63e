"""The agent that chooses: asynchronous where that is faster, synchronous-parallel where it is not.

Asynchronous calls cost tokens (names, traps), and win the time in which functions run while the model speaks. So what
is faster depends on execution over generation, and on how many calls can be said at once, and after one another. All
that is in a `Profile`, learnt from the tasks done so far; before each task both manners are played through with it and
with what the offered tools are expected to take, and the faster one is chosen.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import cycle, islice
from statistics import mean

from cadenza import Context, model

from .asynchronous import Asynchronous
from .executor import Job
from .outcome import Agent, Outcome
from .synchronous import Synchronous
from .toolbox import Toolbox

Shape = tuple[int, ...]
"""Of a task: how many calls could be made in each of its rounds, each round after the results of the one before."""

SHAPES_KEPT = 32
RELEARN_TASKS = 32     # one in so many is done in parallel whatever is foreseen: only turns show the shape of tasks
SMOOTHING = 0.3
MARKS, MARKS_PARALLEL, TRAP = 4, 1, 2
"""Tokens beside a call's code: [CALL] id [HEAD] … [END], and <|call|> …; those of a trap."""


@dataclass
class Profile:
    """What tasks were like. It may outlive an agent, and serve many."""

    call_tokens: float = 20.0
    token_seconds: float = 0.01
    execution_seconds: float = 0.1
    shapes: deque[Shape] = field(default_factory=lambda: deque(maxlen=SHAPES_KEPT))
    tasks: int = 0

    def ratio(self, executions: Sequence[float] = ()) -> float:
        """Execution over generation, of a call."""
        return mean(executions or [self.execution_seconds]) / (self.call_tokens * self.token_seconds)

    def asynchronous_is_faster(self, executions: Sequence[float] = ()) -> bool:
        """For tasks like those so far, whose calls take such times. Without any of them: once a call takes as long to
        run as to say, about."""
        if not self.shapes:
            return self.ratio(executions) > 1.0
        times = executions or [self.execution_seconds]
        lead = [self.parallel_seconds(shape, times) - self.asynchronous_seconds(shape, times) for shape in self.shapes]
        return sum(lead) > 0.0

    def parallel_seconds(self, shape: Shape, executions: Sequence[float]) -> float:
        """Every round is said, then it waits for its longest call."""
        times, token = cycle(executions), self.token_seconds
        return sum((calls * (self.call_tokens + MARKS_PARALLEL) + 1) * token + max(islice(times, calls))
                   for calls in shape)

    def asynchronous_seconds(self, shape: Shape, executions: Sequence[float]) -> float:
        """Chains side by side: a call is said as soon as the one before it has returned and nobody else is first."""
        times, token, now = cycle(executions), self.token_seconds, 0.0
        left = [sum(calls > chain for calls in shape) for chain in range(max(shape))]
        sayable, running = deque(range(len(left))), list[tuple[float, int]]()
        while sayable or running:
            if sayable:
                chain = sayable.popleft()
                left[chain] -= 1
                now += (self.call_tokens + MARKS) * token
                running.append((now + next(times), chain))
            else:
                now = max(now + TRAP * token, min(running)[0])
            returned = sorted(each for each in running if each[0] <= now)
            running = [each for each in running if each[0] > now]
            sayable.extend(chain for _, chain in returned if left[chain])
        return now

    # --- learning ---

    def learn(self, outcome: Outcome, *, parallel: bool) -> None:
        self.tasks += 1
        jobs = [job for job in outcome.jobs if job.began is not None and job.ended is not None]
        if not jobs:
            return
        tokens = [len(model.tokenize(job.code)) for job in jobs]
        self.call_tokens = _moved(self.call_tokens, mean(tokens))
        self.execution_seconds = _moved(self.execution_seconds, mean(map(_execution, jobs)))
        if parallel:
            waited = sum(max(map(_execution, jobs)) for jobs in rounds(jobs))
            self.token_seconds = _moved(self.token_seconds, (outcome.seconds - waited) / max(1, outcome.tokens))
            self.shapes.append(tuple(len(jobs) for jobs in rounds(jobs)))
        elif len(jobs) > 1:                              # two calls without a pause in between: the shortest times
            spoken = [(later.asked - job.asked) / (count + MARKS)
                      for job, later, count in zip(jobs, jobs[1:], tokens[1:], strict=False)]
            self.token_seconds = _moved(self.token_seconds, min(spoken))


class Adaptive:
    """One of two agents for each task. `manner` is that of the one for the next task: it is chosen when it is asked for,
    and does the task."""

    def __init__(self, tools: Toolbox, asynchronous: Asynchronous, parallel: Synchronous,
                 profile: Profile | None = None) -> None:  # fmt: skip
        self.profile = profile or Profile()
        self._tools = tools
        self._asynchronous, self._parallel = asynchronous, parallel

    @property
    def chosen(self) -> Agent:
        profile = self.profile
        if profile.tasks % RELEARN_TASKS == 0 and profile.tasks:
            return self._parallel
        expected = [tool.seconds for tool in self._tools if tool.seconds is not None]
        return self._asynchronous if profile.asynchronous_is_faster(expected) else self._parallel

    @property
    def manner(self) -> str:
        return self.chosen.manner

    async def act(self, context: Context) -> Outcome:
        agent = self.chosen
        outcome = await agent.act(context)
        self.profile.learn(outcome, parallel=agent is self._parallel)
        return outcome


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


def _moved(known: float, seen: float) -> float:
    return known + SMOOTHING * (seen - known)
