"""`Run`: decoding that the kernel continues without asking, delivering tokens as they come.

    ├── before ──┼── inputs ──┼── sampled and fed ──┼── sampled, not fed
    0          start         base             base + echoed

Steps are submitted ahead of results, so at any time `len(tokens)` are known, `sampled` have been asked for, and
`echoed` have been fed back as inputs, by value if known and by lane if not. An ended run has fed all but its last
token. What was submitted past the end is cut off: the outcome is that of an unhurried run.

A program may put tokens in (`interject`): they follow the last known token, and are fed with it in one piece, as soon
as the run's guide is open. What was submitted past a token that made it open, or under a mask that proved to be another
state's, is void: it is cut off as well, and asked again. A grammar stands where the tokens end that the run keeps.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np

from cadenza.kernel.breadth import PLAIN
from cadenza.kernel.device.batch import Int32, StepResult, UInt8
from cadenza.kernel.guide import Guide, LateMask, unknown_mask, well_drawn
from cadenza.kernel.limits import INTERJECTED_TOKENS
from cadenza.kernel.passes import Row, Work
from cadenza.kernel.progress import Progress, Range, Stop
from cadenza.kernel.sampler import Past, Sampler
from cadenza.kvfs.errors import CadenzaError, Closed, LimitExceeded, TooLong

if TYPE_CHECKING:
    from cadenza.kernel.batch_builder import BatchBuilder
    from cadenza.kernel.engine import Engine
    from cadenza.kvfs.file import File


class Run(Work):
    """One decode. Ready when `deliver_every` tokens wait to be taken, or when it has ended."""

    __slots__ = ("_changes", "_deliver_every", "_drawn_under", "_echoed", "_error", "_finish", "_guide", "_interjected",
                 "_kept", "_mask", "_max_tokens", "_most", "_next_position", "_pending", "_resumed",
                 "_room_tokens", "_sampled", "_settling", "_stop_sequences", "_stop_tokens", "_taken",
                 "_tells", "_uniform", "_void", "base", "sampler", "tokens")
    kind = "run"

    def __init__(self, engine: Engine, file: File, reads: list[File], inputs: Int32, positions: Int32, priority: int, *,
                 sampler: Sampler, stop: Stop, mask: UInt8 | None = None, guide: Guide | None = None,
                 deliver_every: int = 1) -> None:  # fmt: skip
        super().__init__(engine, file, reads, inputs, positions, priority)
        self.sampler = sampler
        self._max_tokens, self._room_tokens, self._stop_tokens, self._stop_sequences = stop
        self._most = min(stop.max_tokens, stop.room_tokens + 1)    # the last token sampled needs no room
        self._mask = mask
        self._guide = guide
        self._drawn_under: deque[UInt8 | LateMask | None] = deque()     # with a guide: the masks of samples under way
        self._pending: list[Int32] = []                      # interjections that wait
        self._interjected: list[Range] = []                  # of `tokens`, not reported yet
        self._void = 0               # samples under way that nobody wants any more
        self._deliver_every = deliver_every
        self.lane = engine.lanes.take()
        self.base = self.start + len(inputs)
        self._next_position = int(positions[-1]) + 1
        self.tokens: list[int] = []
        self._sampled = 0
        self._echoed = 0
        self._taken = 0
        self._kept = 0               # of those taken: how many were sampled
        self._resumed = 0            # tokens that were known when it was last fed
        self._finish = "running"
        self._error: CadenzaError | None = None
        self._settling = False       # stopped, while preempted: only fed up to where it stood
        self._changes = 0            # of the file, when the run left it
        self._uniform = not (sampler.bias or sampler.penalties or guide) and mask is None and self.breadth is PLAIN
        self._tells = False          # the device is told anew what has been said
        self._tell_anew()

    def wanted(self) -> int:
        if self.prefilling:
            return self.missing + len(self.inputs) - self.fed
        if self._pending and self._sampled > len(self.tokens) and (self._guide is None or self._guide.open):
            return 0                 # what is under way comes first, then what was put in
        if self._guide is not None and self._guide.exact and self._sampled > len(self.tokens) and (
                not self.engine.link.facts.late_masks):
            return 0                 # its mask is not known, and this device takes no late ones
        return 1 if self._echoed < self._sampled < self._most and not self._settling else 0

    def submit(self, builder: BatchBuilder, count: int) -> None:
        if self.prefilling:
            last = self._submit_inputs(builder, count) + count - 1
            if self.prefilling or self._settling:
                return
        else:
            last = self._submit_echo(builder)
        mask = self._mask if self._guide is None else self._mask_ahead(self._guide)
        told = self._told() if self._tells else None
        builder.add_sample(last, self.lane, self.sampler, self.base + self._sampled - 1, mask, told)
        self._sampled += 1

    def go_on(self) -> None:
        if self._uniform and not self.prefilling and not self._pending and self.file.roomy and (
                self.present and not self.missing):
            left, position = self._most - self._sampled, self._next_position + self._echoed
            self.engine.decodes.enter(self, position, left, self.engine.pager.slots[self.adapter])
            self.steady, self.file.record_rest = True, self.catch_up

    def catch_up(self) -> None:
        if self.steady:
            self.steady, self.file.record_rest = False, None
            position = self._next_position + self._echoed
            count = self.engine.decodes.leave(self) - position
            known = self.tokens[self._echoed : self._echoed + count]
            self.file.table.append_all(known + [-1] * (count - len(known)), position)
            self._echoed += count
            self._sampled += count
            self.file.used = self.turn

    def _tell_anew(self) -> None:
        """What the device believes to have been said has not been said: the next sample comes with its history."""
        self._tells = self.sampler.penalties is not None
        self._widen(sum(map(len, self.reads)) + self.base + len(self.tokens) if self._tells else 0)

    def _told(self) -> Int32:
        assert self._sampled == len(self.tokens), "a history with a token that nobody knows yet"
        penalties = self.sampler.penalties
        assert penalties is not None
        self._tells = False
        self._widen(0)
        past = Past(self.reads, self.file)
        return past.seen(past.end, penalties.window)

    def _widen(self, before: int) -> None:
        """To what its next step tells, of a history of so many tokens."""
        breadth = self.breadth._replace(told=self.sampler.told(before))
        self.breadth = PLAIN if breadth == PLAIN else breadth

    def _mask_ahead(self, guide: Guide) -> UInt8 | LateMask | None:
        """Its own, or what serves best while that is not known."""
        is_known, greedy = self._sampled == len(self.tokens), not self.sampler.temperature
        mask = guide.mask if is_known else unknown_mask(guide, self.engine.link.facts.vocabulary_size, greedy=greedy)
        self._drawn_under.append(mask)
        return mask

    def _submit_echo(self, builder: BatchBuilder) -> int:
        echoed = self._echoed
        known = self.tokens[echoed] if echoed < len(self.tokens) else -1
        if not self.file.roomy and (pages := self.file.growth_for(1)):
            self.allow_pages(pages)
        position = self._next_position + echoed
        slot, copies = self.file.extend_one(known, position)
        self._echoed = echoed + 1
        named = known if known >= 0 else -1 - self.lane
        return builder.add_row(self.reads, self.file, (named,), (position,), (slot,), copies)

    def preempt(self) -> None:
        """What was sampled becomes input, so that feeding it again leads to where the run stood."""
        super().preempt()
        self._void = 0                                  # what was under way with a device that was lost
        self._drawn_under.clear()
        if not self._settling:
            self._feed_what_was_said()

    def _feed_what_was_said(self) -> None:
        asked = self.base - self.start
        said = np.array(self.tokens, np.int32)
        self.inputs = np.concatenate([self.inputs[:asked], said])
        positions = np.arange(self._next_position, self._next_position + len(said), dtype=np.int32)
        self.positions = np.concatenate([self.positions[:asked], positions])
        self._sampled = self._echoed = self._resumed = len(said)
        self._tell_anew()

    def accept(self, result: StepResult, row: Row) -> None:
        if self._settling:
            if not self.prefilling and not self.under_way:
                self._end("stopped")
            return
        if row.samples == row.samples_end:
            return                                      # a chunk of the inputs that was not the last
        if self._void:
            self._void -= 1
            return
        self._accept_token(result.tokens.item(row.samples))

    def accept_next(self, token: int) -> None:
        """`accept` of a row that `decodes` has submitted: neither void, nor the first since it was fed."""
        known = len(self.tokens) + 1
        if known >= self._most or token in self._stop_tokens or self._stop_sequences or self._pending:
            self._accept_token(token)
            return
        self.tokens.append(token)
        if known <= self._echoed:
            self.file.set_token(self.base + known - 1, token)
        if known - self._taken >= self._deliver_every:
            self.signal()

    def _accept_token(self, token: int) -> None:
        if self._guide is not None and not self._was_well_drawn(self._guide, token):
            return
        ordinal = len(self.tokens)
        if ordinal == 0:
            self.engine.know(self.file, self.base)
        if ordinal == self._resumed:
            self.trace.fed()
        self.tokens.append(token)
        if ordinal < self._echoed:
            self.file.set_token(self.base + ordinal, token)
        finish = self._finish_after(token)
        try:
            finish = finish if self._guide is None else self._follow(self._guide, token, finish)
        except CadenzaError as error:
            self.fail(error)
            return
        if finish:
            self._end(finish)
            return
        if len(self.tokens) - self._taken >= self._deliver_every:
            self.signal()
        self._put_in()

    def _was_well_drawn(self, guide: Guide, token: int) -> bool:
        """Whether the sample is the one that its state's mask gives; if not it is asked again."""
        if well_drawn(guide, self._drawn_under.popleft(), token, greedy=not self.sampler.temperature):
            return True
        self._sampled -= 1
        self._cut_ahead()
        return False

    def _follow(self, guide: Guide, token: int, finish: str | None) -> str | None:
        """How the run ends with that, if it does. Raises LimitExceeded, Invalid."""
        was_open = guide.open
        guide.follow(token)
        if finish is not None:
            return finish
        if guide.open and not was_open and self._pending:
            self._cut_ahead()
        return guide.end()

    def _cut_ahead(self) -> None:
        """What was asked past the known tokens is void. The last of them is fed (again) next."""
        self._void += self._sampled - len(self.tokens)
        self._sampled = len(self.tokens)
        self._drawn_under.clear()
        self._tell_anew()
        if self._echoed >= self._sampled:
            self._echoed = self._sampled - 1
            self.file.truncate(self.base + self._echoed)

    def interject(self, tokens: Int32) -> None:
        """Tokens to follow the last known one, as soon as nothing is under way past it and the guide is open; those
        that wait go together. Reported by the `take` that answers them; what never was has not been put in. Raises
        Closed when the run has ended, LimitExceeded, TooLong."""
        waiting = len(tokens) + sum(map(len, self._pending))
        if self.over or self._settling:
            raise Closed("the run has ended: what it was to be told goes into the next one")
        if waiting > INTERJECTED_TOKENS:
            raise LimitExceeded(f"{waiting} tokens would wait to be put into a run; at most {INTERJECTED_TOKENS} may",
                                "interjected_tokens")
        if len(self.tokens) + waiting > self._room_tokens:
            raise TooLong(f"{waiting} tokens do not fit: the context has room for {self._room_tokens} after the "
                          f"input of this run, and {len(self.tokens)} of them are used")
        self.catch_up()
        self._pending.append(tokens)
        self._put_in()
        self.engine.look_again()

    def _put_in(self) -> None:
        """If it may be: what waits becomes input, behind the last known token."""
        if not self._pending or self.prefilling or not self.tokens or self._sampled > len(self.tokens):
            return
        if self._guide is not None and not self._guide.open:
            return
        fed = self.base - self.start + self._echoed
        for tokens in self._pending:
            self._interjected.append(Range(len(self.tokens), len(tokens)))
            self.tokens += tokens.tolist()
            self._max_tokens += len(tokens)
        self._most = min(self._max_tokens, self._room_tokens + 1)
        self.trace.interjected(sum(map(len, self._pending)))
        self._pending.clear()
        self._feed_what_was_said()
        self.fed, self.prefilling = fed, True
        self.join_line()

    @property
    def taken(self) -> int:
        """How many of `tokens` the program has taken."""
        return self._taken

    def take(self) -> Progress:
        """What has come since the last take. Raises, once nothing is left to take, what the run failed with."""
        tokens = self.tokens[self._taken:]
        if self._error is not None and not tokens:
            raise self._error
        interjected: Iterable[Range] = ()
        if self._interjected:
            interjected = [Range(each.first - self._taken, each.count) for each in self._interjected]
            self._interjected = []
        sampled = len(tokens) - sum(each.count for each in interjected)
        self._taken += len(tokens)
        self._kept += sampled
        if sampled:
            self.trace.took(sampled)
        if not self.over:
            self.unsignal()
        computed = max(0, min(self.fed, self.base - self.start) - self.reused)
        finish = self._finish if self._error is None else "running"
        return Progress(tokens, finish, computed, self.reused, interjected)

    def take_next(self) -> int:
        """As `take`, if one token is all there is to tell; else -1, and nothing is taken."""
        if self.over or self._interjected or len(self.tokens) - self._taken != 1:
            return -1
        token = self.tokens[self._taken]
        self._taken += 1
        self._kept += 1
        self.trace.took(1)
        self.ready = False
        return token

    def stop(self) -> None:
        """Undoes what has not been taken. A run of which nothing was taken has never been. `over` is false after it
        only while what a preemption took away is fed again; nothing is sampled any more."""
        if self.over:
            self._cut_ended()
            return
        self._forget_the_rest()
        if len(self.file) >= self._end_of_file():
            self._end("stopped")
        elif not self._settling:
            self._settling = True
            self.inputs = self.inputs[: self._end_of_file() - self.start]
            self.positions = self.positions[: len(self.inputs)]

    def _forget_the_rest(self) -> None:
        """What has not been taken."""
        del self.tokens[self._taken:]
        if self._guide is not None:
            self._guide.keep(self._kept)

    def release(self, keep_tokens: int) -> None:
        self.catch_up()
        self.engine.decodes.forget(self)
        super().release(keep_tokens)
        if self._guide is not None:
            self._guide.leave()

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
            self.engine.lanes.give_back(self.lane, has_history=self.sampler.penalties is not None)
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
        self.engine.lanes.give_back(self.lane, has_history=self.sampler.penalties is not None)
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
            self._forget_the_rest()
            self._finish = "stopped"
            if self.file.changes == self._changes and not self.file.closed:
                self.file.truncate(min(self._end_of_file(), len(self.file)))
