"""The heart: collect what is ready, form a batch, step the device, deliver completions.

    add ──▶ work ──▶ choose ──▶ submit ══ device ══▶ deliver ──▶ accept ──▶ signal ──▶ the program's wait
                       ▲                                │
                       └──────── ahead of results ──────┘

Steps are submitted `run_ahead` deep, so the device never waits for a program; each is formed as late as it can be.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable

from cadenza.kernel.batch_builder import BatchBuilder
from cadenza.kernel.batcher import BatchPolicy, Share
from cadenza.kernel.device.batch import StepResult
from cadenza.kernel.device.link import DeviceLink
from cadenza.kernel.lanes import Lanes
from cadenza.kernel.limits import LANES, PATIENCE_SECONDS, RETRY_SECONDS, RUN_AHEAD_STEPS
from cadenza.kernel.pager import Pager
from cadenza.kernel.passes import PLAIN, STEP_BREADTH, Row, Work
from cadenza.kvfs.errors import CadenzaError, DeviceLost, Internal, LimitExceeded, NoPages
from cadenza.kvfs.file import File

log = logging.getLogger(__name__)


class Engine:
    """Owns the work under way and the link to the device. Everything happens on the event loop's thread."""

    def __init__(self, link: DeviceLink, policy: BatchPolicy, pager: Pager, *, run_ahead: int = RUN_AHEAD_STEPS,
                 patience_seconds: float = PATIENCE_SECONDS) -> None:
        self.link = link
        self.lanes = Lanes(LANES)
        self._policy = policy
        self.pager = pager
        self._run_ahead = run_ahead
        self._patience = patience_seconds
        self._starved_since: float | None = None
        self.idle: Callable[[], None] = lambda: None        # called whenever the last work has ended
        self._work: dict[Work, None] = {}
        self._parked: set[Work] = set()                     # preempted, waiting for others to end
        self._loading: set[Work] = set()                    # what they read is on its way from disk
        self._submitted: deque[tuple[int, list[Row]]] = deque()
        self._arrivals = 0
        self._pump_is_due = False
        self._lost = ""
        self.steps_done = 0
        self.tokens_done = 0                                # input tokens submitted
        self.samples_done = 0                               # tokens that came back
        self.device_seconds = 0.0
        self.preemptions = 0
        self.pages_copied = 0                               # so that a fork could be written to
        pager.works, pager.pump = self._work.keys, self._pump_anew
        self.connect()

    def connect(self) -> None:
        """Takes the link's answers from now on; only needed if somebody else has had them."""
        self.link.connect(self._deliver, self._lose)

    def add(self, work: Work) -> None:
        """Takes on work whose file is marked as being appended to. Raises DeviceLost."""
        if self._lost:
            raise DeviceLost(f"the device is gone: {self._lost}")
        self._arrivals += 1
        work.arrival = self._arrivals
        self._work[work] = None
        self._pump_soon()

    def know(self, file: File, tokens: int) -> None:
        """The K and V of its first `tokens`, known all, are computed: prompts that begin so may share them."""
        self.pager.files.prefixes.add(file, tokens)

    def remove(self, work: Work) -> None:
        """Forgets work that is over. Idempotent; its rows under way come back to nobody."""
        self._work.pop(work, None)
        self._loading.discard(work)
        self._parked.clear()                                # there may be room again
        if self._work:
            self._pump_soon()
        else:
            self.idle()

    @property
    def next_step(self) -> int:
        return self.pager.next_step

    @property
    def busy(self) -> bool:
        """Whether any work is under way."""
        return bool(self._work)

    @property
    def depth(self) -> int:
        """Steps submitted and not yet answered."""
        return len(self._submitted)

    def _pump_soon(self) -> None:
        if not self._pump_is_due:
            self._pump_is_due = True
            asyncio.get_running_loop().call_soon(self._pump)

    def _pump_anew(self) -> None:
        """The pager has moved something: who waited for that may go on."""
        self._loading.clear()
        self._pump_soon()

    def _pump(self) -> None:
        self._pump_is_due = False
        while len(self._submitted) < self._run_ahead and not self._lost:
            aside = self._parked | self._loading
            shares = self._policy.choose(self._work.keys() - aside if aside else self._work)
            if not (shares or self.pager.moving) or not self._submit(shares):
                return

    def _submit(self, shares: list[Share]) -> bool:
        """Whether a step has been submitted: none is when no chosen work could get pages."""
        builder = BatchBuilder(self.pager.next_step, self.pager.pool)
        rows, starved = self._gather(shares, builder)
        if starved and self._make_room(starved):
            self._pump_soon()
        if rows or self.pager.moving:
            if rows:
                self._starved_since = None
            batch = builder.build()
            batch.swap_outs, batch.swap_ins = self.pager.take_moves()
            self.tokens_done += builder.tokens
            self.pages_copied += len(batch.copies)
            self._submitted.append((batch.step, rows))
            self.link.submit(batch)
            return True
        if starved:
            self._relieve(starved)
        elif shares:
            self._pump_soon()
        return False

    def _gather(self, shares: list[Share], builder: BatchBuilder) -> tuple[list[Row], list[tuple[Work, NoPages]]]:
        """The rows that are in the batch then, and who found no pages."""
        rows: list[Row] = []
        starved: list[tuple[Work, NoPages]] = []
        breadth = PLAIN
        for work, count in shares:
            if work.breadth is not PLAIN:
                wider = breadth.plus(work.breadth)
                if not wider.within(STEP_BREADTH):
                    continue                                # it is first in a step to come
                breadth = wider
            samples, probes = builder.samples, builder.probes
            try:
                if not (work.present or self._bring(work)):
                    continue
                work.submit(builder, min(count, work.wanted()))
            except NoPages as error:
                starved.append((work, error))
                continue
            except LimitExceeded as error:
                work.refuse(error)
                continue
            work.turn = work.file.used = builder.step
            work.under_way += 1
            rows.append(Row(work, samples, builder.samples, probes, builder.probes))
        return rows, starved

    def _bring(self, work: Work) -> bool:
        """Whether all that it reads is on the device, or comes in this step. Raises NoPages, LimitExceeded."""
        work.reuse(self.pager.files.prefixes)
        if self.pager.bring(work):
            return True
        self._loading.add(work)
        return False

    def _make_room(self, starved: list[tuple[Work, NoPages]]) -> bool:
        """Whether idle files have left the device for the oldest of them."""
        _, error = min(starved, key=lambda s: s[0].arrival)
        return self.pager.make_room(error.needed)

    def _relieve(self, starved: list[tuple[Work, NoPages]]) -> None:
        """No chosen work could get pages, and no step is under way that could free some: the youngest that holds any
        makes room for the oldest that wants some. When nobody else holds any, programs have a while to close files,
        and then the oldest fails."""
        if self._submitted or self._pump_is_due:
            return
        oldest, error = min(starved, key=lambda s: s[0].arrival)
        holders = [w for w in self._work if w.fed and w is not oldest]
        if holders:
            youngest = max(holders, key=lambda w: w.arrival)
            youngest.preempt()
            self._parked.add(youngest)
            self.preemptions += 1
            self._pump_soon()
        elif self._out_of_patience():
            oldest.fail(error)
            self._pump_soon()
        else:
            asyncio.get_running_loop().call_later(RETRY_SECONDS, self._pump_soon)

    def _out_of_patience(self) -> bool:
        now = time.monotonic()
        if self._starved_since is None:
            self._starved_since = now
        return now - self._starved_since >= self._patience

    def _deliver(self, result: StepResult) -> None:
        step, rows = self._submitted.popleft()
        assert step == result.step, f"step {result.step} came back where {step} was due"
        self.steps_done += 1
        self.samples_done += len(result.tokens)
        self.device_seconds += result.seconds
        self.pager.answered(step)
        for row in rows:
            row.work.under_way -= 1
            if row.work.over:
                continue
            if result.error:
                row.work.fail(Internal(f"the device could not do this step: {result.error}"))
            else:
                row.work.accept(result, row)
        self._pump_soon()

    def _lose(self, reason: str) -> None:
        """The device is gone, and every KV page with it."""
        log.error("the device is gone: %s", reason)
        self._lost = reason or "no reason known"
        self._submitted.clear()
        error = DeviceLost(f"the device failed ({self._lost}); what it held is gone")
        self.pager.lose(error)
        self.fail_all(error)

    def abort(self, pid: int) -> None:
        """Ends whatever a process that is gone has left."""
        for work in [w for w in self._work if w.pid == pid]:
            work.abort()

    def fail_all(self, error: CadenzaError) -> None:
        for work in list(self._work):
            work.fail(error)

    def statistics(self) -> dict[str, float]:
        return {
            "work": len(self._work), "steps": self.steps_done, "tokens": self.tokens_done, "samples": self.samples_done,
            "steps_under_way": len(self._submitted), "lanes": self.lanes.taken, "device_seconds": self.device_seconds,
            "preemptions": self.preemptions, "pages_copied": self.pages_copied, **self.pager.statistics(),
        }
