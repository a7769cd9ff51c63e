"""Work without files, pages or a device: what a batch policy sees of it, and steps that take their time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from cadenza.kernel.batcher import BatchPolicy
from cadenza.kernel.breadth import PLAIN, STEP_BREADTH, Breadth
from cadenza.kernel.ledger import Ledger


class FakeWork:
    """`left` inputs, then `decodes` tokens one by one."""

    def __init__(self, owner: str, priority: int, left: int, decodes: int = 0, reads: int = 0) -> None:
        self.owner, self.priority, self.left, self.decodes = owner, priority, left, decodes
        self.breadth = Breadth(reads=reads) if reads else PLAIN
        self.prefilling, self.steady = left > 0, False
        self.admitted, self.turned_away, self.missing, self.under_way = True, False, 0, 0
        self.arrival = self.sequence = self.turn = 0
        self.asked_at = self.fed_at = self.served_at = 0.0

    def wanted(self) -> int:
        return self.left if self.prefilling else min(1, self.decodes)


class FakeEngine:
    """Gives a policy its work, step by step; a step of `n` tokens takes `seconds(n)`."""

    def __init__(self, policy: BatchPolicy, seconds: float = 0.02) -> None:
        self.policy, self.seconds = policy, seconds
        self.ledger = Ledger()
        self.work: dict[FakeWork, None] = {}
        self.now, self.steps, self._arrivals = 0.0, 0, 0

    def add(self, owner: str, left: int, *, priority: int = 0, decodes: int = 0, reads: int = 0) -> FakeWork:
        work = FakeWork(owner, priority, left, decodes, reads)
        self._arrivals += 1
        work.arrival = work.sequence = self._arrivals
        work.turn, work.asked_at = self.steps, self.now
        work.served_at = self.now
        self.ledger.now = self.now
        if left:
            work.line = self.ledger.join(owner, priority)
        self.work[work] = None
        return work

    def step(self) -> list[tuple[FakeWork, int]]:
        """Answers the shares of the step. What reads more than a step may waits."""
        self.ledger.now = self.now
        shares: list[tuple[Any, int]] = list(self.policy.choose(self.work, self.now))  # type: ignore[arg-type]
        assert len({id(work) for work, _ in shares}) == len(shares), "somebody has two rows"
        breadth, done = PLAIN, []
        self.steps += 1
        for work, count in shares:
            wider = breadth.plus(work.breadth)
            if wider.within(STEP_BREADTH):
                breadth = wider
                self._serve(work, count)
                done.append((work, count))
        self.now += self.seconds
        return done

    def run(self, steps: int) -> None:
        for _ in range(steps):
            self.step()

    def _serve(self, work: FakeWork, count: int) -> None:
        assert 1 <= count <= work.wanted(), (count, work.wanted())
        work.turn, work.served_at = self.steps, self.now
        if work.prefilling:
            work.left -= count
            self.ledger.charge(work.line, count)
            if not work.left:
                work.prefilling, work.fed_at = False, self.now
                self.ledger.leave(work.line)
        else:
            work.decodes -= 1
        if not work.wanted():
            del self.work[work]


def tokens(shares: Sequence[tuple[FakeWork, int]], owner: str) -> int:
    return sum(count for work, count in shares if work.owner == owner)
