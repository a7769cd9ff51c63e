"""`Run`: decoding that the kernel continues without asking, delivering tokens as they come.

    ├── before ──┼── inputs ──┼── sampled and fed ──┼── sampled, not fed
    0          start         base             base + echoed

Steps are submitted ahead of results, so at any time `len(tokens)` are known, `sampled` have been asked for, and
`echoed` have been fed back as inputs, by value if known and by lane if not. An ended run has fed all but its last
token. What was submitted past the end is cut off: the outcome is that of an unhurried run.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from cadenza.kernel.device.batch import Int32, StepResult, UInt8
from cadenza.kernel.passes import Row, Sampler, Work
from cadenza.kvfs.errors import CadenzaError

if TYPE_CHECKING:
    from cadenza.kernel.batch_builder import BatchBuilder
    from cadenza.kernel.engine import Engine
    from cadenza.kvfs.file import File


class Stop(NamedTuple):
    """When a run ends. `max_tokens` counts sampled tokens; `room_tokens` is what the context still holds."""

    max_tokens: int
    room_tokens: int
    tokens: frozenset[int] = frozenset()
    sequences: tuple[tuple[int, ...], ...] = ()


class Progress(NamedTuple):
    """Tokens not taken before, and how the run stands: a case of WIT's `inference.finish`. Of its input so many tokens
    were computed by now, and so many reused."""

    tokens: list[int]
    finish: str
    computed_tokens: int
    reused_tokens: int


class Run(Work):
    """One decode. Ready when `deliver_every` tokens wait to be taken, or when it has ended."""

    __slots__ = ("_changes", "_deliver_every", "_echoed", "_error", "_finish", "_lane", "_mask", "_max_tokens",
                 "_most", "_next_position", "_resumed", "_sampled", "_sampler", "_settling", "_stop_sequences",
                 "_stop_tokens", "_taken", "base", "tokens")
    kind = "run"

    def __init__(
        self,
        engine: Engine,
        file: File,
        reads: list[File],
        inputs: Int32,
        positions: Int32,
        priority: int,
        *,
        sampler: Sampler,
        stop: Stop,
        mask: UInt8 | None = None,
        deliver_every: int = 1,
    ) -> None:
        super().__init__(engine, file, reads, inputs, positions, priority)
        self._sampler = sampler
        self._max_tokens, _, self._stop_tokens, self._stop_sequences = stop
        self._most = min(stop.max_tokens, stop.room_tokens + 1)    # the last token sampled needs no room
        self._mask = mask
        self._deliver_every = deliver_every
        self._lane = engine.lanes.take()
        self.base = self.start + len(inputs)
        self._next_position = int(positions[-1]) + 1
        self.tokens: list[int] = []
        self._sampled = 0
        self._echoed = 0
        self._taken = 0
        self._resumed = 0            # tokens that were known when it was last fed
        self._finish = "running"
        self._error: CadenzaError | None = None
        self._settling = False       # stopped, while preempted: only fed up to where it stood
        self._changes = 0            # of the file, when the run left it

    def wanted(self) -> int:
        if self.prefilling:
            return self.missing + len(self.inputs) - self.fed
        return 1 if self._echoed < self._sampled < self._most and not self._settling else 0

    def submit(self, builder: BatchBuilder, count: int) -> None:
        if self.prefilling:
            last = self._submit_inputs(builder, count) + count - 1
            if self.prefilling or self._settling:
                return
        else:
            last = self._submit_echo(builder)
        builder.add_sample(last, self._lane, self._sampler, self.base + self._sampled - 1, self._mask)
        self._sampled += 1

    def _submit_echo(self, builder: BatchBuilder) -> int:
        echoed = self._echoed
        known = self.tokens[echoed] if echoed < len(self.tokens) else -1
        if not self.file.roomy:
            self._ask_for_page()
        position = self._next_position + echoed
        slot, copies = self.file.extend_one(known, position)
        self._echoed = echoed + 1
        named = known if known >= 0 else -1 - self._lane
        if self.reads:
            return builder.add_row(self.reads, self.file, (named,), (position,), (slot,), copies)
        return builder.add_token(self.file, named, position, slot, copies)

    def _ask_for_page(self) -> None:
        pages = self.file.growth_for(1)
        if pages:
            self.allow_pages(pages)

    def preempt(self) -> None:
        """What was sampled becomes input, so that feeding it again leads to where the run stood."""
        super().preempt()
        if self._settling:
            return
        asked = self.base - self.start
        said = np.array(self.tokens, np.int32)
        self.inputs = np.concatenate([self.inputs[:asked], said])
        self.positions = np.concatenate([self.positions[:asked], self._next_position + np.arange(len(said))])
        self._sampled = self._echoed = self._resumed = len(said)

    def accept(self, result: StepResult, row: Row) -> None:
        if self._settling:
            if not self.prefilling and not self.under_way:
                self._end("stopped")
            return
        if row.samples == row.samples_end:
            return                                      # a chunk of the inputs that was not the last
        token = result.tokens.item(row.samples)
        ordinal = len(self.tokens)
        if ordinal == 0:
            self.engine.know(self.file, self.base)
        if ordinal == self._resumed:
            self.trace.fed()
        self.tokens.append(token)
        if ordinal < self._echoed:
            self.file.set_token(self.base + ordinal, token)
        finish = self._finish_after(token)
        if finish is not None:
            self._end(finish)
        elif len(self.tokens) - self._taken >= self._deliver_every:
            self.signal()

    @property
    def taken(self) -> int:
        """How many of `tokens` the program has taken."""
        return self._taken

    def take(self) -> Progress:
        """What has come since the last take. Raises, once nothing is left to take, what the run failed with."""
        tokens = self.tokens[self._taken:]
        if self._error is not None and not tokens:
            raise self._error
        self._taken += len(tokens)
        if tokens:
            self.trace.took(len(tokens))
        if not self.over:
            self.unsignal()
        computed = max(0, min(self.fed, self.base - self.start) - self.reused)
        return Progress(tokens, self._finish if self._error is None else "running", computed, self.reused)

    def stop(self) -> None:
        """Undoes what has not been taken. A run of which nothing was taken has never been. `over` is false after it
        only while what a preemption took away is fed again; nothing is sampled any more."""
        if self.over:
            self._cut_ended()
            return
        del self.tokens[self._taken:]
        if len(self.file) >= self._end_of_file():
            self._end("stopped")
        elif not self._settling:
            self._settling = True
            self.inputs = self.inputs[: self._end_of_file() - self.start]
            self.positions = self.positions[: len(self.inputs)]

    def fail(self, error: CadenzaError) -> None:
        if not self.over:
            self._error = error
            self._end("running")

    def refuse(self, error: CadenzaError) -> None:
        """A run that has sampled ends as one that has filled its context does, when all that was sampled is there."""
        if self.prefilling:
            self.fail(error)
            return
        self._most = self._sampled
        if len(self.tokens) == self._most:
            self._end("context-full")

    def abort(self) -> None:
        if not self.over:
            self.engine.lanes.give_back(self._lane)
            super().abort()

    def close(self) -> None:
        self.stop()

    def _finish_after(self, token: int) -> str | None:
        if token in self._stop_tokens:
            return "stop-token"
        for sequence in self._stop_sequences:
            if token == sequence[-1] and tuple(self.tokens[-len(sequence):]) == sequence:
                return "stop-sequence"
        if len(self.tokens) < self._most:
            return None
        return "length" if self._most == self._max_tokens else "context-full"

    def _end(self, finish: str) -> None:
        self._finish = finish
        self.trace.ended(finish if self._error is None else self._error.errno)
        self.engine.lanes.give_back(self._lane)
        if self._error is None and self.tokens:
            self.engine.know(self.file, self._end_of_file())
        self.release(min(self._end_of_file(), len(self.file)))
        self._changes = self.file.changes
        self.signal()

    def _end_of_file(self) -> int:
        """Where the file ends when the run ends with the tokens that are known now."""
        return self.base + len(self.tokens) - 1 if self.tokens else self.start

    def _cut_ended(self) -> None:
        """The run had ended before the program said that it wants no more: the same, if the file is as it was left."""
        if self._taken < len(self.tokens):
            del self.tokens[self._taken:]
            self._finish = "stopped"
            if self.file.changes == self._changes and not self.file.closed:
                self.file.truncate(min(self._end_of_file(), len(self.file)))
