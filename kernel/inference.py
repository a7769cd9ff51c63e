"""From what a program asks to work for the engine: everything that can be wrong with a request is found here."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from cadenza.kernel.breadth import segments_read
from cadenza.kernel.device.batch import PROBE_HIDDEN, PROBE_LOG_PROBABILITIES, PROBE_TOP, DeviceFacts, Int32, UInt8
from cadenza.kernel.grammar.matcher import Matcher
from cadenza.kernel.guide import Grammar, Guide, State, States, both
from cadenza.kernel.limits import (
    DRAFT_TOKENS,
    PASS_PROBE_VALUES,
    PASS_PROBES,
    PASS_READS,
    PASS_SAMPLES,
    PASS_TOKENS,
    PASS_TOLD_TOKENS,
    PROBE_TOKENS,
    RUN_MOVES,
    RUN_STATES,
    STOP_SEQUENCE_TOKENS,
    STOP_SEQUENCES,
    STOP_TOKENS,
    VISIBLE_RANGES,
)
from cadenza.kernel.passes import Pass, Probe, Work
from cadenza.kernel.progress import Stop
from cadenza.kernel.runs import Run
from cadenza.kernel.sampler import Sampler, check_sampler, tokens_told
from cadenza.kernel.verification import Verification, depths_of, pruned
from cadenza.kvfs.errors import CadenzaError, Invalid, LimitExceeded, TooLong, Unsupported

if TYPE_CHECKING:
    from cadenza.kernel.engine import Engine
    from cadenza.kernel.process import Process
    from cadenza.kvfs.file import File

W = TypeVar("W", bound=Work)


class Inference:
    """Makes passes and runs for processes and hands them to the engine."""

    def __init__(self, engine: Engine, facts: DeviceFacts) -> None:
        self._engine = engine
        self._facts = facts

    def forward(
        self, process: Process, file: File, reads: Sequence[File], tokens: Int32, positions: Int32, *,
        visible: Int32, mask: UInt8 | None, samples: Sequence[tuple[int, Sampler]],
        probes: Sequence[tuple[int, Probe]], adapter: str = "", scores_from: int | None = None,
        grammar: Matcher | None = None,
    ) -> Pass:
        """`adapter`: the digest of one that is loaded; `grammar`: masks every sample, as it stands. Raises Invalid,
        TooLong, LimitExceeded, Busy, NotReady, Unsupported, DeviceLost; then nothing has changed."""
        mask = mask if grammar is None else both(grammar.mask, mask, "the grammar, as it stands,")
        positions = self._check_input(process, file, reads, tokens, positions)
        before = len(file) + sum(len(read) for read in reads)
        self._check_questions(before, len(tokens), samples, probes)
        if scores_from is not None and scores_from >= len(tokens):
            raise Invalid(f"scores-from is row {scores_from}; the pass has {len(tokens)} rows, from 0", "scores-from")
        ranges = check_visible(visible, before, len(tokens)) if len(visible) else None
        snapshots = self._claim(file, reads, exact=not reads and ranges is None, adapter=adapter)
        return self._begin(process, Pass(self._engine, file, snapshots, tokens, positions, process.priority,
                                         visible=ranges, mask=mask, samples=samples, probes=probes,
                                         scores_from=scores_from), adapter)

    def decode(
        self, process: Process, file: File, reads: Sequence[File], tokens: Int32, positions: Int32, *,
        sampler: Sampler, mask: UInt8 | None, max_tokens: int, stop_tokens: frozenset[int],
        stop_sequences: tuple[tuple[int, ...], ...], deliver_every: int, states: Sequence[State] = (),
        adapter: str = "", grammar: Matcher | None = None,
    ) -> Run:
        """`grammar`: moved by what the run samples. Raises as `forward` does, and LimitExceeded when too many decodes
        are alive."""
        positions = self._check_input(process, file, reads, tokens, positions)
        check_sampler(sampler, self._facts.vocabulary_size)
        check_told(sampler.told(self._facts.context_tokens))
        stop = Stop(max_tokens, self._room(file, reads, positions), stop_tokens, stop_sequences)
        check_stop(stop, deliver_every)
        automaton = self._states(states, mask) if states else None
        self._engine.lanes.ensure_room()
        guide: Guide | None = automaton if grammar is None else Grammar(grammar, automaton, mask)
        snapshots = self._claim(file, reads, exact=not reads, adapter=adapter, guide=guide)
        return self._begin(process, Run(self._engine, file, snapshots, tokens, positions, process.priority,
                                        sampler=sampler, stop=stop, mask=mask, guide=guide,
                                        deliver_every=deliver_every), adapter)

    def verify(
        self, process: Process, file: File, reads: Sequence[File], tokens: Int32, parents: Sequence[int], *,
        sampler: Sampler, mask: UInt8 | None, adapter: str = "", grammar: Matcher | None = None,
    ) -> Verification:
        """`tokens`: the root, then the drafted ones, each of which has a parent among those before it. `grammar` stands
        behind the root, and is moved by what is sampled. Raises as `forward` does."""
        if not len(parents) == len(tokens) - 1 <= DRAFT_TOKENS:
            raise LimitExceeded(f"a draft has at most {DRAFT_TOKENS} tokens, and a parent for each; this one has "
                                f"{len(tokens) - 1} tokens and {len(parents)} parents", "draft_tokens")
        if any(not 0 <= parent <= number for number, parent in enumerate(parents)):
            raise Invalid("the parent of a drafted token is the root, 0, or the number, from 1 on, of one before it",
                          "parents")
        positions = self._check_input(process, file, reads, tokens, np.zeros(0, np.int32))
        check_sampler(sampler, self._facts.vocabulary_size)
        before = len(file) + sum(len(read) for read in reads)
        check_told(tokens_told(before, [(row, sampler) for row in range(len(tokens))]))
        guide, masks = None if grammar is None else Grammar(grammar, None, mask), [mask] * len(tokens)
        if guide is not None:
            kept, parents, masks = pruned(parents, guide.masks_along(tokens.tolist(), parents))
            tokens = tokens[kept]
        snapshots = self._claim(file, reads, exact=not reads, adapter=adapter, guide=guide)
        positions = positions[0] + np.array(depths_of(parents), np.int32)
        return self._begin(process, Verification(self._engine, file, snapshots, tokens, positions, process.priority,
                                                 parents=parents, sampler=sampler, masks=masks, guide=guide), adapter)

    def interject(self, run: Run, tokens: Int32) -> None:
        """Raises Invalid, Closed, LimitExceeded, TooLong; then nothing has changed."""
        if not len(tokens):
            raise Invalid("an interjection has one token at least", "tokens")
        self._check_tokens(tokens, "tokens")
        run.interject(tokens)

    def mask(self, tokens: Int32, *, allowed: bool) -> UInt8:
        """Packed bits, [⌈vocabulary / 8⌉]: only `tokens`, or all but them. Raises Invalid if nothing is left."""
        self._check_tokens(tokens, "mask")
        bits = np.full(self._facts.vocabulary_size, not allowed)
        bits[tokens] = allowed
        if not bits.any():
            raise Invalid("the mask hides every token of the vocabulary: at least one must be allowed", "mask")
        return np.packbits(bits, bitorder="little")

    def _states(self, states: Sequence[State], mask: UInt8 | None) -> States:
        moves = [token for state in states for token in state.moves]
        if len(states) > RUN_STATES or len(moves) > RUN_MOVES:
            raise LimitExceeded(f"a run has at most {RUN_STATES} states with {RUN_MOVES} moves in all, not "
                                f"{len(states)} with {len(moves)}", "states")
        self._check_tokens(np.array(moves, np.int32), "moves")
        return States(states, mask)

    def _claim(self, file: File, reads: Sequence[File], *, exact: bool, adapter: str,
               guide: Guide | None = None) -> list[File]:  # fmt: skip
        """Marks `file` as being appended to, and the grammar of `guide` as moved; answers `reads` as they are now.
        Raises Busy; then nothing has changed."""
        file.begin_append(exact=exact, adapter=adapter)
        snapshots: list[File] = []
        try:
            for read in reads:
                snapshots.append(read.fork())
                read.used = self._engine.next_step
        except CadenzaError:
            file.end_append()
            for snapshot in snapshots:
                snapshot.close()
            raise
        if guide is not None:
            guide.begin()
        return snapshots

    def _begin(self, process: Process, work: W, adapter: str) -> W:
        work.adapter = adapter
        work.allow_pages = process.allow_pages
        work.pid = process.pid
        work.trace = process.trace.begin_work(work.kind)
        work.arrival = process.place if self._engine.reclaimer.policy.keeps_place else 0
        try:
            self._engine.add(work)
        except CadenzaError:
            work.close()
            raise
        process.place = work.arrival
        return work

    def _room(self, file: File, reads: Sequence[File], positions: Int32) -> int:
        """Tokens that may still follow the input before the context is full."""
        last = max(int(positions[-1]) + 1, len(file) + sum(len(read) for read in reads) + len(positions))
        return self._facts.context_tokens - last

    def _check_tokens(self, tokens: Int32, field: str) -> None:
        if len(tokens) and not 0 <= int(tokens.min()) <= int(tokens.max()) < self._facts.vocabulary_size:
            raise Invalid(f"{field} names a token outside the vocabulary of {self._facts.vocabulary_size}", field)

    def _check_input(
        self, process: Process, file: File, reads: Sequence[File], tokens: Int32, positions: Int32
    ) -> Int32:
        """The positions of `tokens`: those given, or those that follow what is read."""
        count = len(tokens)
        if not 1 <= count <= PASS_TOKENS:
            raise Invalid(f"a pass has 1 to {PASS_TOKENS} tokens; this one has {count}", "tokens")
        self._check_tokens(tokens, "tokens")
        positions = self._check_positions(file, reads, count, positions)
        total = len(file) + sum(len(read) for read in reads) + count
        context = self._facts.context_tokens
        if total > context or int(positions.max()) >= context:
            raise TooLong(f"{total} tokens up to position {int(positions.max())}: the model's context holds {context}; "
                          "truncate the file or give fewer", "tokens")
        if reads or len(file.parts):
            segments = segments_read(file, reads)
            if segments > PASS_READS:
                raise LimitExceeded(f"a pass reads at most {PASS_READS} segments; these files are made of {segments}: "
                                    "compute some of them anew, as one", "pass_reads")
        process.allow_pages(file.growth_for(count))
        return positions

    def _check_positions(self, file: File, reads: Sequence[File], count: int, positions: Int32) -> Int32:
        if len(positions) == 0:
            first = max(f.next_position for f in (*reads, file))
            return np.arange(first, first + count, dtype=np.int32)
        if len(positions) != count:
            raise Invalid(f"{count} tokens, but {len(positions)} positions: give one a token, or none", "positions")
        if int(positions.min()) < 0:
            raise Invalid("a position is beyond what a context can hold", "positions")
        return positions

    def _check_questions(
        self, before: int, count: int, samples: Sequence[tuple[int, Sampler]], probes: Sequence[tuple[int, Probe]]
    ) -> None:
        if len(samples) > PASS_SAMPLES:
            raise LimitExceeded(f"a pass has at most {PASS_SAMPLES} samples, not {len(samples)}", "pass_samples")
        if len(probes) > PASS_PROBES:
            raise LimitExceeded(f"a pass has at most {PASS_PROBES} probes, not {len(probes)}", "pass_probes")
        for row in [row for row, _ in samples] + [row for row, _ in probes]:
            if row >= count:
                raise Invalid(f"row {row} is asked for, but the pass has {count} rows, from 0", "row")
        for _, sampler in samples:
            check_sampler(sampler, self._facts.vocabulary_size)
        check_told(tokens_told(before, samples))
        for _, probe in probes:
            self._check_probe(probe)
        values = sum(probe.values(self._facts) for _, probe in probes)
        if values > PASS_PROBE_VALUES:
            raise LimitExceeded(f"the probes of a pass answer at most {PASS_PROBE_VALUES} numbers; these would answer "
                                f"{values}: ask less at once", "pass_probe_values")

    def _check_probe(self, probe: Probe) -> None:
        most = min(PROBE_TOKENS, self._facts.vocabulary_size)
        if probe.kind == PROBE_TOP and not 1 <= probe.top <= most:
            raise Invalid(f"a top probe gives 1 to {most} tokens; {probe.top} were asked for", "probes")
        if probe.kind == PROBE_HIDDEN and not self._facts.hidden_size:
            raise Unsupported(f"the device ({self._facts.name}) shows no hidden states")
        if probe.kind == PROBE_LOG_PROBABILITIES:
            if not 1 <= len(probe.tokens) <= most:
                raise Invalid(f"a log-probabilities probe names 1 to {most} tokens, not {len(probe.tokens)}", "probes")
            self._check_tokens(np.asarray(probe.tokens, np.int32), "probes")


def check_told(told: int) -> None:
    """Raises LimitExceeded."""
    if told > PASS_TOLD_TOKENS:
        raise LimitExceeded(f"biases and penalties concern {told} tokens; in one pass at most {PASS_TOLD_TOKENS}: ask "
                            "fewer samples, or give the penalties a window", "pass_told_tokens")


def check_stop(stop: Stop, deliver_every: int) -> None:
    """Raises Invalid or LimitExceeded naming the field."""
    sequences = stop.sequences
    if len(stop.tokens) > STOP_TOKENS:
        raise LimitExceeded(f"a run has at most {STOP_TOKENS} stop tokens, not {len(stop.tokens)}", "stop_tokens")
    if stop.max_tokens < 1:
        raise Invalid("max_tokens is 0; a run samples at least one token", "max_tokens")
    if deliver_every < 1:
        raise Invalid("deliver_every is 0; 1 delivers tokens as they come", "deliver_every")
    if len(sequences) > STOP_SEQUENCES or any(len(s) > STOP_SEQUENCE_TOKENS for s in sequences):
        raise LimitExceeded(f"a run has at most {STOP_SEQUENCES} stop sequences of {STOP_SEQUENCE_TOKENS} tokens",
                            "stop_sequences")
    if any(not s for s in sequences):
        raise Invalid("a stop sequence is empty", "stop_sequences")


def check_visible(ranges: Int32, before: int, count: int) -> Int32:
    """The ranges, [·, 3], by row. Every row that is named must see itself, else there may be nothing that it sees."""
    if len(ranges) > VISIBLE_RANGES:
        raise LimitExceeded(f"a pass has at most {VISIBLE_RANGES} visible ranges", "visible_ranges")
    rows, firsts, counts = ranges.astype(np.int64).T
    if int(rows.max()) >= count or int(ranges.min()) < 0:
        raise Invalid(f"a visible range is for row {int(rows.max())}; the pass has {count} rows, from 0", "visible")
    own = before + rows
    sees_itself = (firsts <= own) & (own < firsts + counts)
    hidden = np.setdiff1d(rows, rows[sees_itself])
    if len(hidden):
        raise Invalid(f"the visible ranges hide row {int(hidden[0])} from itself (offset {before + int(hidden[0])}): "
                      "a row must see at least its own token", "visible")
    return ranges[np.argsort(rows, kind="stable")]
