"""The heart: collect what is ready, form a batch, step the device, deliver completions.

    add ──▶ work ──▶ choose ──▶ admit ──▶ submit ══ device ══▶ deliver ──▶ accept ──▶ signal ──▶ the program's wait
                       ▲                                          │
                       └────────────── ahead of results ──────────┘

Steps are submitted `run_ahead` deep, so the device never waits for a program; each is formed as late as it can be. Work
is admitted when there is room for all that it reads and its inputs, and a page more for each that is in hand already:
so nobody is let in only to push another out. Who waits for room is not overtaken by who comes after.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from functools import partial

from cadenza.kernel.admission import Admission
from cadenza.kernel.batch_builder import BatchBuilder, Late
from cadenza.kernel.batcher import BatchPolicy, Share
from cadenza.kernel.breadth import PLAIN, STEP_BREADTH
from cadenza.kernel.costs import Costs
from cadenza.kernel.decodes import Decodes
from cadenza.kernel.device.batch import StepResult
from cadenza.kernel.device.link import DeviceLink
from cadenza.kernel.lanes import Lanes
from cadenza.kernel.ledger import Ledger
from cadenza.kernel.limits import LANES, MOST_RUN_AHEAD_STEPS, PATIENCE_SECONDS, RETRY_SECONDS, RUN_AHEAD_STEPS
from cadenza.kernel.memory.foresight import Foresight
from cadenza.kernel.memory.policy import MemoryPolicy
from cadenza.kernel.pager import Pager
from cadenza.kernel.passes import Row, Work
from cadenza.kernel.recall import recall
from cadenza.kernel.reclaim import Reclaimer
from cadenza.kernel.recovery import Recovery
from cadenza.kernel.runs import Run
from cadenza.kernel.waits import Waits
from cadenza.kvfs.errors import DeviceLost, Internal, Invalid, LimitExceeded, NoPages
from cadenza.kvfs.file import File


class Engine:
    """Owns the work under way and the link to the device. Everything happens on the event loop's thread."""

    def __init__(self, link: DeviceLink, policy: BatchPolicy, pager: Pager, *, memory: MemoryPolicy | None = None,
                 costs: Costs | None = None, run_ahead: int = RUN_AHEAD_STEPS,
                 patience_seconds: float = PATIENCE_SECONDS) -> None:
        """`memory`: for the pages of programs that wait; `costs`: the device's constants. Raises Invalid."""
        if not 1 <= run_ahead <= MOST_RUN_AHEAD_STEPS:
            raise Invalid(f"{run_ahead} steps at a time; there may be 1 to {MOST_RUN_AHEAD_STEPS}", "run_ahead")
        self.link = link
        self.lanes = Lanes(LANES)
        self.ledger = Ledger()
        self._policy = policy
        self.pager = pager
        self.decodes = Decodes(LANES, pager.pool)
        self.waits = Waits()
        self.reclaimer = Reclaimer(pager, memory or Foresight(), self.waits, costs or Costs())
        self._run_ahead = run_ahead
        self._patience = patience_seconds
        self._starved_since: float | None = None
        self.idle: Callable[[], None] = lambda: None        # called whenever the last work has ended
        self._work: dict[Work, None] = {}
        self.admission = Admission(pager, self.reclaimer, self.ledger)
        self._yielding: Work | None = None                  # makes room for more urgent work, once its rows are back
        self._submitted: deque[tuple[int, Sequence[Run], list[Row], Late]] = deque()
        self._arrivals = 0
        self._pump_is_due = False
        self._alarm: asyncio.TimerHandle | None = None      # when the policy wants to be asked again
        self._lost = self._given_up = ""
        self.recovery = Recovery(self)
        self.steps_done = 0
        self.tokens_done = 0                                # input tokens submitted
        self.rows_done = 0                                  # passes in steps
        self.samples_done = 0                               # tokens that came back
        self.device_seconds = 0.0
        self.tokens_recomputed = 0                          # of pages that were lost
        self.preemptions = 0
        self.pages_copied = 0                               # so that a fork could be written to
        pager.pump, self.waits.changed, pager.recall = self._pump_anew, self._pump_soon, partial(recall, self)
        self.reclaimer.works, self.reclaimer.admitted = self._work.keys, lambda: self.admission.in_hand
        self.connect()

    def connect(self) -> None:
        """Takes the link's answers from now on; only needed if somebody else has had them."""
        self.link.connect(self._deliver, self._lose)

    def add(self, work: Work) -> None:
        """Takes on work whose file is marked as being appended to. Raises DeviceLost."""
        if self._given_up:
            raise DeviceLost(f"the device is gone: {self._given_up}")
        self.pager.ensure_recomputable(work)
        self._arrivals += 1
        work.sequence = self._arrivals
        work.arrival = work.arrival or work.sequence
        work.missing = self.pager.lost_tokens(work)
        work.since = self.ledger.now = asyncio.get_running_loop().time()
        work.turn = self.next_step
        work.join_line()
        self._work[work] = None
        self._pump_soon()

    def know(self, file: File, tokens: int) -> None:
        """The K and V of its first `tokens`, known all, are computed: prompts that begin so may share them."""
        self.pager.files.prefixes.add(file, tokens)

    def remove(self, work: Work) -> None:
        """Forgets work that is over. Idempotent; its rows under way come back to nobody."""
        self._work.pop(work, None)
        self.pager.loading.discard(work)
        self.admission.dismiss(work)
        if self._yielding is work:
            self._yielding = None
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

    def look_again(self) -> None:
        """Work that wanted nothing may want something now."""
        self._pump_soon()

    def _pump_anew(self) -> None:
        """The pager has moved something: who waited for that may go on."""
        self.pager.loading.clear()
        self._pump_soon()

    def _pump(self) -> None:
        self._pump_is_due = False
        while len(self._submitted) < self._run_ahead and not self._lost:
            self.reclaimer.begin_step()
            loading, now = self.pager.loading, asyncio.get_running_loop().time()
            self.ledger.now = now
            work = [each for each in self._work if each not in loading] if loading else self._work
            shares = self._policy.choose(work, now)
            if not self._submit(shares):
                self._sleep([self._policy.again(now), self.reclaimer.look_at])
                return

    def _sleep(self, until: list[float | None]) -> None:
        """Pumps at the first of these times, if nothing happens before."""
        if self._alarm is not None:
            self._alarm.cancel()
        times = [when for when in until if when is not None]
        self._alarm = asyncio.get_running_loop().call_at(min(times), self._pump_soon) if times else None

    def _submit(self, shares: list[Share]) -> bool:
        """Whether a step has been submitted: none is when no chosen work could get pages, and nothing moves."""
        going, others = self.decodes.go_on(shares, self._yielding, self.pager.next_step)
        builder = BatchBuilder(self.pager.next_step, self.pager.pool, going)
        rows, starved = self._gather(others, builder)
        for work, _ in starved:
            work.turned_away = True
        self.reclaimer.unasked()
        if builder.rows or self.pager.moving:
            if builder.rows:
                self._starved_since = None
                self.reclaimer.step_tokens = builder.tokens
            batch = builder.build()
            batch.moves, batch.swap_outs, batch.swap_ins = self.pager.take_moves()
            batch.forgotten = self.lanes.take_forgotten()
            self.tokens_done += builder.tokens
            self.rows_done += builder.rows
            self.pages_copied += len(batch.copies)
            self._submitted.append((batch.step, going.group.runs, rows, builder.late))
            self.link.submit(batch)
            return True
        if starved:
            self._relieve(starved)
        elif shares and not self.pager.loading:
            self._pump_soon()
        return False

    def _gather(self, shares: list[Share], builder: BatchBuilder) -> tuple[list[Row], list[tuple[Work, NoPages]]]:
        """The rows that are in the batch then, and who found no pages."""
        rows: list[Row] = []
        starved: list[tuple[Work, NoPages]] = []
        breadth, gate_open = PLAIN, True
        for work, count in shares:
            if work is self._yielding:
                continue
            if work.breadth is not PLAIN:
                wider = breadth.plus(work.breadth)
                if not wider.within(STEP_BREADTH):
                    continue                                # it is first in a step to come
                breadth = wider
            try:
                if work.present or ((work.admitted or gate_open) and self._bring(work)):
                    self._add_rows(work, count, builder, rows)
            except NoPages as error:
                if gate_open and not work.admitted:
                    gate_open = False
                    self._yield_to(work)
                starved.append((work, error))
            except LimitExceeded as error:
                work.refuse(error)
        return rows, starved

    def _add_rows(self, work: Work, count: int, builder: BatchBuilder, rows: list[Row]) -> None:
        """At most `count` tokens: what is missing first. Raises NoPages, LimitExceeded."""
        if work.missing:
            count -= self._compute_again(work, count, builder, rows)
            if work.missing or count <= 0:
                return
        samples, probes, scores = builder.samples, builder.probes, builder.scores
        wanted = min(count, work.wanted())
        if wanted == 0 or self.pager.is_copied_too_soon(work.file):
            return
        try:
            work.submit(builder, wanted)
        except NoPages as error:
            if not self.reclaimer.make_room(error.needed):
                raise
            work.submit(builder, wanted)
        if work.adapter:
            builder.add_adapter(self.pager.slots[work.adapter])
        if builder.copies:
            self.pager.sources.update(source for source, _ in builder.copies)
        work.turn = work.file.used = builder.step
        work.under_way += 1
        rows.append(Row(work, samples, builder.samples, probes, builder.probes, scores, builder.scores))

    def _compute_again(self, work: Work, count: int, builder: BatchBuilder, rows: list[Row]) -> int:
        """Whole pages of what is missing, the first of it. Answers how many tokens that is."""
        run, size = self.pager.lost_run(work), self.pager.pool.page_tokens
        if run is None:
            work.missing = 0
            return 0
        count = min(run.length, max(size, count - count % size))
        first = run.first // size
        self.pager.regain(run.file.table.pages()[first : first - (-count // size)].tolist())
        builder.add_again(run.file, run.first, count)
        if run.file.adapter:
            builder.add_adapter(self.pager.slots[run.file.adapter])
        work.missing = self.pager.lost_tokens(work)
        self.ledger.charge(work.line, count)
        self.tokens_recomputed += count
        work.under_way += 1
        rows.append(Row(work, builder.samples, builder.samples, builder.probes, builder.probes))
        return count

    def _bring(self, work: Work) -> bool:
        """Whether all that it reads is on the device, or comes in this step. Raises NoPages, LimitExceeded."""
        if not work.admitted:
            work.reuse(self.pager.files.prefixes)
            self.admission.admit(work)
        return self.pager.bring(work)

    def _relieve(self, starved: list[tuple[Work, NoPages]]) -> None:
        """No chosen work could get pages, and no step is under way that could free some: the last in line that is in
        hand makes room for the first that wants some. When nobody else is, programs have a while to close files, and
        then the first fails."""
        if self._submitted or self._pump_is_due:
            return
        first, error = min(starved, key=lambda s: _line(s[0]))
        others = [work for work in self.admission.in_hand if work is not first]
        if others:
            self._preempt(_last(others))
        elif self._out_of_patience() and not (self.waits.waiting and error.needed <= self.pager.pool.total):
            first.fail(error)
            self._pump_soon()
        else:
            asyncio.get_running_loop().call_later(RETRY_SECONDS, self._pump_soon)

    def _yield_to(self, work: Work) -> None:
        """Priority orders memory as well: the last in line of those less urgent makes room, once its rows are back.
        But nobody yields twice, or he might never get on."""
        if self._yielding is None:
            lesser = [each for each in self.admission.in_hand if each.priority < work.priority and not each.preempted]
            if lesser:
                self._yielding = _last(lesser)
                self._yielding.catch_up()
                self._end_yielding()

    def _end_yielding(self) -> None:
        if self._yielding is not None and not self._yielding.under_way:
            self._preempt(self._yielding)

    def _preempt(self, work: Work) -> None:
        """Only while no row of it is under way."""
        self._yielding = None
        self.admission.dismiss(work)
        work.catch_up()
        work.preempted += 1
        work.trace.preempted()
        self.reclaimer.set_aside(work)
        self.preemptions += 1
        self._pump_soon()

    def _out_of_patience(self) -> bool:
        now = asyncio.get_running_loop().time()
        if self._starved_since is None:
            self._starved_since = now
        return now - self._starved_since >= self._patience

    def _deliver(self, result: StepResult) -> None:
        step, going, rows, _ = self._submitted.popleft()
        assert step == result.step, f"step {result.step} came back where {step} was due"
        self.steps_done += 1
        self.samples_done += len(result.tokens)
        self.device_seconds += result.seconds
        self.pager.answered(step)
        failed = frozenset(result.failed_rows.tolist())
        if result.error or failed:
            rows = [*(Row(run, number, number + 1, 0, 0) for number, run in enumerate(going)), *rows]
            going = going[:0]
        for run, token in zip(going, result.tokens.tolist(), strict=False):
            run.under_way -= 1
            if not run.over:
                run.accept_next(token)
        for number, row in enumerate(rows):
            row.work.under_way -= 1
            if row.work.over:
                continue
            if result.error:
                row.work.fail(Internal(f"the device could not do this step: {result.error}"))
            elif number in failed:
                row.work.fail(Invalid("under this adapter the model computes numbers that are not finite", "adapter"))
            else:
                row.work.accept(result, row)
        if self._submitted and self._submitted[0][3]:
            self.link.give_masks([(index, late.mask()) for index, late in self._submitted[0][3]])
        self._end_yielding()
        self._pump_soon()

    def _lose(self, reason: str) -> None:
        """The device is gone, and what it held: see recovery.py."""
        self._lost = reason or "no reason known"
        suspects = frozenset(work for _, going, rows, _ in self._submitted
                             for work in (*going, *(row.work for row in rows)))
        self._submitted.clear()
        self.admission.dismiss_all()
        self._yielding = None
        self.recovery.begin(self._lost, self._work, suspects)

    def come_back(self) -> None:
        """The device is there again, empty."""
        self._lost = ""
        self._pump_soon()

    def uses(self, adapter: str) -> bool:
        """Whether anything under way, or any file that is alive, was begun under `adapter`."""
        return any(work.adapter == adapter for work in self._work) or any(
            file.adapter == adapter and len(file) for file in self.pager.files.living)

    def abort(self, pid: int) -> None:
        """Ends whatever a process that is gone has left."""
        for work in [w for w in self._work if w.pid == pid]:
            work.abort()

    def give_up(self, error: DeviceLost) -> None:
        """The device does not come back."""
        self._given_up = self._lost
        for work in list(self._work):
            work.fail(error)

    def statistics(self) -> dict[str, float]:
        return {
            "work": len(self._work), "steps": self.steps_done, "tokens": self.tokens_done, "rows": self.rows_done,
            "samples": self.samples_done, "steps_under_way": len(self._submitted), "lanes": self.lanes.taken,
            "device_seconds": self.device_seconds, "device_losses": self.recovery.losses,
            "preemptions": self.preemptions,
            "tokens_recomputed": self.tokens_recomputed, **self.waits.statistics(),
            "pages_copied": self.pages_copied, **self.ledger.statistics(), **self.pager.statistics(),
        }


def _last(works: Iterable[Work]) -> Work:
    """Who makes room: of those who did so least often, the last in line."""
    return max(works, key=lambda work: (-work.preempted, _line(work)))


def _line(work: Work) -> tuple[int, int, int]:
    """Who comes first."""
    return -work.priority, work.arrival, work.sequence
