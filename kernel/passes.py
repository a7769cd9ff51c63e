"""What programs ask of the model: work that the engine cuts into rows of steps. Here: `Pass`, one forward request.

A row is *submitted* when it is put into a batch and *accepted* when its result has come back; several steps may lie
between. Whatever is stopped, cancelled or has failed is undone by cutting the file; rows of it that are still under
way write only to slots that lie past the cut, and the device keeps the order of steps, so nobody reads what they leave.

The draw of a sample is the offset of the token whose logits it is drawn from: the same seed on the same tokens draws
the same, whether it is asked for pass by pass or by a run.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from cadenza.kernel.breadth import PLAIN, Breadth, segments_read
from cadenza.kernel.device.batch import PROBE_HIDDEN, PROBE_LOGITS, DeviceFacts, Float32, Int32, StepResult, UInt8
from cadenza.kernel.handles import Waitable
from cadenza.kernel.sampler import Past, Sampler, tokens_told
from cadenza.kernel.trace import UNTRACED, Untraced
from cadenza.kvfs.errors import CadenzaError, NotReady

if TYPE_CHECKING:
    from cadenza.kernel.batch_builder import BatchBuilder
    from cadenza.kernel.engine import Engine
    from cadenza.kernel.ledger import Line
    from cadenza.kvfs.file import File
    from cadenza.kvfs.prefixes import Prefixes


class Probe(NamedTuple):
    """`kind` is a PROBE_… of kernel/device/batch.py; `top` how many a top probe gives; `tokens` those whose
    log-probability is asked."""

    kind: int
    top: int = 0
    tokens: Sequence[int] = ()

    def values(self, facts: DeviceFacts) -> int:
        """How many numbers it answers, at most."""
        if self.kind in (PROBE_LOGITS, PROBE_HIDDEN):
            return facts.vocabulary_size if self.kind == PROBE_LOGITS else facts.hidden_size
        return self.top + len(self.tokens) + 1


@dataclass(frozen=True, slots=True)
class ProbeAnswer:
    """`values` as in StepResult; `ids` are the tokens of top."""

    kind: int
    values: Float32
    ids: Int32


@dataclass(slots=True)
class PassCompletion:
    """Sampled tokens and probes, in the order in which they were asked for; scores, row by row."""

    tokens: list[int]
    probes: list[ProbeAnswer]
    computed_tokens: int
    reused_tokens: int = 0
    scores: list[float] = field(default_factory=list)


class Work(Waitable):
    """What the engine and the batcher know of a pass or a run."""

    __slots__ = (
        "adapter",
        "admitted",
        "allow_pages",
        "arrival",
        "breadth",
        "engine",
        "fed",
        "file",
        "in_line",
        "inputs",
        "lane",
        "line",
        "losses",
        "missing",
        "over",
        "owner",
        "pid",
        "plain",
        "positions",
        "preempted",
        "prefilling",
        "present",
        "priority",
        "reads",
        "reused",
        "sequence",
        "since",
        "start",
        "steady",
        "trace",
        "turn",
        "turned_away",
        "under_way",
    )
    kind = "pass"

    def __init__(
        self, engine: Engine, file: File, reads: list[File], inputs: Int32, positions: Int32, priority: int
    ) -> None:
        super().__init__()
        self.engine = engine
        self.file = file
        self.reads = reads
        self.inputs = inputs
        self.positions = positions
        self.priority = priority
        file.open_count += 1         # it stays while this writes to it, whoever closes or unlinks it
        self.start = len(file)
        self.fed = 0                 # input tokens submitted so far; a run goes on past len(inputs)
        self.prefilling = True       # inputs that the program gave are still to be submitted
        self.breadth = Breadth(reads=segments_read(file, reads)) if reads or len(file.parts) else PLAIN
        # What a prompt is: alone in its file, each position its offset.
        self.plain = not reads and file.exact and bool((positions == np.arange(len(positions))).all())
        self.reused = 0              # inputs whose K and V were known already
        self.over = False
        self.admitted = False        # in hand: there is room for all that it reads, and for its inputs
        self.present = False         # all that it reads, but what is missing, is on the device
        self.missing = 0             # tokens that it reads, whose pages were lost: they are computed again first
        self.turned_away = False     # there was no room for it
        self.owner = file.owner
        self.line: Line              # where it waits, or waited last, to be fed
        self.in_line = False
        self.since = 0.0             # loop time when it was asked for
        self.arrival = 0             # its place in line, that of its program,
        self.preempted = 0           # times that it has made room for others
        self.losses = 0              # devices that were lost with rows of it under way
        self.sequence = 0            # and among those that have the same
        self.pid = 0                 # of the process that asked
        self.adapter = ""            # under which it is computed: a digest, or none
        self.allow_pages: Callable[[int], None] = lambda pages: None     # raises LimitExceeded
        self.trace: Untraced = UNTRACED
        self.turn = 0                # step in which it last had a row
        self.under_way = 0           # rows submitted and not accepted
        self.steady = False          # it goes on without being asked: see decodes.py
        self.lane = -1               # under which the device remembers what it sampled, if it does

    def wanted(self) -> int:
        """How many tokens could go into the next step; 0 when there is nothing to submit for now."""
        raise NotImplementedError

    def submit(self, builder: BatchBuilder, count: int) -> None:
        """Puts a row of `count` tokens into the batch. Raises NoPages, and changes nothing, if there is no room."""
        raise NotImplementedError

    def accept(self, result: StepResult, row: Row) -> None:
        """Takes what a row of this work brought back."""
        raise NotImplementedError

    def go_on(self) -> None:
        """It wants a row in the step that is being formed: is steady from now on, if it can be."""

    def catch_up(self) -> None:
        """It is steady no more: what it is, and its file, is as if it had been asked for each row. Idempotent."""

    @property
    def spared(self) -> int:
        """How many of its first inputs need not be computed if their K and V are known: nothing is asked of them."""
        return len(self.inputs) - 1

    def reuse(self, prefixes: Prefixes) -> None:
        """Begins, if it can, with pages that hold the first of its tokens already. Raises LimitExceeded."""
        if self.fed or len(self.file) or not self.plain:
            return
        pages = prefixes.find(self.file.owner, self.inputs[: self.spared], self.adapter)
        if pages:
            self.allow_pages(len(pages))
            self.reused = self.fed = self.file.revive(pages, self.inputs, self.positions)

    def preempt(self) -> None:
        """Gives back the pages of what it has fed, to feed it again later; the program does not notice. Only while no
        row of it is under way."""
        assert not self.under_way, "rows under way would write to pages given back"
        self.catch_up()
        self.file.truncate(self.start)
        self.fed = self.reused = 0
        self.prefilling = True
        self.join_line()

    def begin_again(self) -> None:
        """The device is gone, with all that was under way: the rest is as if it had made room for others."""
        self.under_way = 0
        self.admitted = self.present = False
        self.preempt()
        self.missing = self.engine.pager.lost_tokens(self)

    def join_line(self) -> None:
        """Its inputs wait to be fed. Idempotent."""
        if not self.in_line:
            self.in_line = True
            self.line = self.engine.ledger.join(self.owner, self.priority)
            if self.admitted:
                self.engine.admission.feed_again(self)

    def leave_line(self) -> None:
        """Idempotent."""
        if self.in_line:
            self.in_line = False
            self.engine.ledger.leave(self.line)

    def growth(self) -> int:
        """How many pages it takes to put its inputs into the file, or one token more."""
        return self.file.pages_for(len(self.inputs) - self.fed if self.prefilling else 1)

    def fail(self, error: CadenzaError) -> None:
        """Ends with an error. Idempotent."""
        raise NotImplementedError

    def refuse(self, error: CadenzaError) -> None:
        """What it needs next is not allowed; nothing was submitted."""
        self.fail(error)

    def abort(self) -> None:
        """Ends with nobody left to ask; the file is as it was before. Idempotent."""
        if not self.over:
            self.trace.ended("cancelled")
            self.release(self.start)

    def release(self, keep_tokens: int) -> None:
        """Leaves the engine: the file is cut to `keep_tokens` and may be written by others again."""
        self.over = True
        self.leave_line()
        self.file.truncate(keep_tokens)
        self.file.end_append()
        self.file.release()
        for read in self.reads:
            read.close()
        self.reads = []
        self.engine.remove(self)

    def _submit_inputs(self, builder: BatchBuilder, count: int) -> int:
        pages = self.file.growth_for(count)
        if pages:
            self.allow_pages(pages)
        chunk = slice(self.fed, self.fed + count)
        tokens, positions = self.inputs[chunk].tolist(), self.positions[chunk].tolist()
        slots, copies = self.file.extend(tokens, positions)
        self.fed += count
        self.engine.ledger.charge(self.line, count)
        self.prefilling = self.fed < len(self.inputs)
        if not self.prefilling:
            self.leave_line()
        return builder.add_row(self.reads, self.file, tokens, positions, slots.tolist(), copies)


class Row(NamedTuple):
    """One row of a submitted step: whose it is, and where its answers lie in the result."""

    work: Work
    samples: int
    samples_end: int
    probes: int
    probes_end: int
    scores: int = 0
    scores_end: int = 0


class OneAnswer(Work):
    """Work that has its answer when it is over, or an error; then the file is as it was before."""

    __slots__ = ("_error",)

    def __init__(
        self, engine: Engine, file: File, reads: list[File], inputs: Int32, positions: Int32, priority: int
    ) -> None:
        super().__init__(engine, file, reads, inputs, positions, priority)
        self._error: CadenzaError | None = None

    def fail(self, error: CadenzaError) -> None:
        if not self.over:
            self._error = error
            self.trace.ended(error.errno)
            self.release(self.start)
            self.signal()

    def close(self) -> None:
        self.abort()


class Pass(OneAnswer):
    """One forward request: appends its inputs, answers what was asked of its rows."""

    __slots__ = ("_completion", "_mask", "_probes", "_samples", "_scores_from", "_visible")

    def __init__(
        self,
        engine: Engine,
        file: File,
        reads: list[File],
        inputs: Int32,
        positions: Int32,
        priority: int,
        *,
        visible: Int32 | None = None,
        mask: UInt8 | None = None,
        samples: Sequence[tuple[int, Sampler]] = (),
        probes: Sequence[tuple[int, Probe]] = (),
        scores_from: int | None = None,
    ) -> None:
        super().__init__(engine, file, reads, inputs, positions, priority)
        self._visible = visible
        self._mask = mask
        self._samples = sorted(enumerate(samples), key=lambda s: s[1][0])
        self._probes = sorted(enumerate(probes), key=lambda p: p[1][0])
        self._scores_from = len(inputs) if scores_from is None else scores_from
        values = sum(probe.values(engine.link.facts) for _, probe in probes)
        ranges = 0 if visible is None else len(visible)
        told = tokens_told(self.start + sum(map(len, reads)), samples)
        self.breadth = Breadth(max(0, len(samples) - 1), len(probes), values, ranges, self.breadth.reads, told)
        self.plain = self.plain and visible is None
        self._completion = PassCompletion([], [], 0)

    @property
    def spared(self) -> int:
        asked = [asked[0] for _, asked in (*self._samples[:1], *self._probes[:1])]
        return min([len(self.inputs) - 1, self._scores_from, *asked])

    def wanted(self) -> int:
        return self.missing + len(self.inputs) - self.fed

    def submit(self, builder: BatchBuilder, count: int) -> None:
        first, end = self.fed, self.fed + count
        token = self._submit_inputs(builder, count) - first
        if self._visible is not None:
            inside = (self._visible[:, 0] >= first) & (self._visible[:, 0] < end)
            builder.add_visible((self._visible[inside] - np.array([first, 0, 0], np.int32)).astype(np.int32))
        told = self._told(first, end)
        for number, (row, sampler) in self._samples:
            if first <= row < end:
                builder.add_sample(token + row, -1, sampler, self.start + row, self._mask, told.get(number))
        for _, (row, probe) in self._probes:
            if first <= row < end:
                builder.add_probe(token + row, probe)
        if self._scores_from < end:
            scored = max(first, self._scores_from)
            builder.add_scores(token + scored, self.inputs[scored + 1 : end + 1].tolist())

    def _told(self, first: int, end: int) -> dict[int, Int32]:
        """Histories of samples of these rows, the last of which were just put into the file."""
        asked = [(number, row, sampler.penalties.window) for number, (row, sampler) in self._samples
                 if sampler.penalties is not None and first <= row < end]
        if not asked:
            return {}
        past, named = Past(self.reads, self.file), self._visible
        return {number: past.seen(past.end - end + row, window, None if named is None else named[named[:, 0] == row])
                for number, row, window in asked}

    def accept(self, result: StepResult, row: Row) -> None:
        done = self._completion
        done.tokens.extend(result.tokens[row.samples:row.samples_end].tolist())
        for probe in range(row.probes, row.probes_end):
            kind = self._probes[len(done.probes)][1][1].kind
            values = result.probe_values[result.probe_starts[probe]:result.probe_starts[probe + 1]]
            ids = result.probe_ids[result.id_starts[probe]:result.id_starts[probe + 1]]
            done.probes.append(ProbeAnswer(kind, values.copy(), ids.copy()))
        done.scores.extend(result.scores[row.scores:row.scores_end].tolist())
        if not self.prefilling and not self.under_way:
            self._finish()

    def preempt(self) -> None:
        super().preempt()
        self._completion = PassCompletion([], [], 0)

    def _finish(self) -> None:
        done = self._completion
        done.computed_tokens, done.reused_tokens = len(self.inputs) - self.reused, self.reused
        done.tokens = [t for _, t in sorted(zip([o for o, _ in self._samples], done.tokens, strict=True))]
        order = sorted(range(len(self._probes)), key=lambda i: self._probes[i][0])
        done.probes = [done.probes[i] for i in order]
        self.engine.know(self.file, self.start + len(self.inputs))
        self.trace.ended("", len(done.tokens))
        self.release(self.start + len(self.inputs))
        self.signal()

    def take(self) -> PassCompletion:
        """Raises what the pass failed with, or NotReady."""
        if self._error is not None:
            raise self._error
        if not self.over:
            raise NotReady("the pass has not finished; wait for its handle first")
        return self._completion
