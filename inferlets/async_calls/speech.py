"""The model speaking CML in a context: what it says comes as events, what interrupts it goes in between.

    outside ──say──▶ Text, Call …                  tell: behind the next token outside a critical section
    trap    ──▶ Trap; nothing is sampled           tell: then the model goes on
    end     ──▶ None; the turn stays open          tell: then the model goes on
"""

from __future__ import annotations

from collections import deque
from typing import Any, Literal

import cadenza
from cadenza import Context, Decoding, Sampler, TooLong
from cadenza.text import TextStream

from .cml import END, Event, Parser, Trap
from .notation import Notation

Pause = Literal["", "trap", "end", "length"]
MOST_TOLD_TOKENS = 512
"""Of interrupts that may go in between two tokens of the model; what is more waits its turn."""


class Speech:
    """One turn of the assistant. `interrupts` counts those that stand in the context; `pause` says why nothing is
    sampled now."""

    def __init__(self, context: Context, *, max_tokens: int = 4096, sampler: Sampler | None = None,
                 notation: Notation | None = None) -> None:  # fmt: skip
        self.notation = notation or Notation.of_model()
        self.pause: Pause = ""
        self.interrupts = 0
        self.tokens = 0                                  # sampled
        self._context = context
        self._left = max_tokens
        self._sampler = sampler
        self._parser = Parser()
        self._constraint: dict[str, Any] | None = None   # None where it is to begin outside of a critical section
        self._trapped = False                            # as text: a token went on behind the trap, see `_amid`
        self._stream = TextStream()
        self._events: deque[Event] = deque()
        self._decoding: Decoding | None = None
        self._queued: deque[list[int]] = deque()         # interrupts that are not given to the decoding
        self._given: deque[int] = deque()                # the lengths of those that are, and do not stand yet
        self._standing = 0                               # interrupts of this decoding that are counted

    @property
    def untold(self) -> int:
        """Interrupts that do not stand in the context yet."""
        return len(self._queued) + len(self._given)

    def tell(self, written: str) -> None:
        """An interrupt, as CML. Never blocks. Goes in outside a critical section; a pause ends. Raises TooLong."""
        self._queued.append(self.notation.written(written))
        if self.pause != "length":
            self.pause = ""
        self._give()

    async def next(self) -> Event | None:
        """What the model says next; None when it makes a pause."""
        while not self._events:
            if self.pause:
                return None
            if self._decoding is None or self._must_stop_for_interrupts():
                await self._begin()
            await self._hear()
        event = self._events.popleft()
        self._trapped |= isinstance(event, Trap)
        if self._trapped and not self.pause and not self._amid:
            self._trapped = False
            self._end()
            self.pause = "" if self._queued else "trap"
        return event

    def close(self) -> None:
        """Says no more. What was consumed stays in the context."""
        if self._decoding is not None:
            self._decoding.stop()
        self._events.clear()
        self.pause = self.pause or "end"

    # --- what is told ---

    def _give(self) -> None:
        """To the run that goes on, which knows by its states when they may go in."""
        if self._decoding is None or not self.notation.reserved:
            return
        while self._queued and sum(self._given) + len(self._queued[0]) <= max(MOST_TOLD_TOKENS, len(self._queued[0])):
            try:
                self._decoding.interject(self._queued[0])
            except TooLong:
                return                                   # the next run says so, to whom it concerns
            self._given.append(len(self._queued.popleft()))

    def _must_stop_for_interrupts(self) -> bool:
        """As text: whether something waits, and here it may go in."""
        return bool(self._queued) and not (self.notation.reserved or self._amid)

    @property
    def _amid(self) -> bool:
        """Whether nothing may go in here: a critical section, or maybe the beginning of one; half a character."""
        return self._parser.critical or bool(self._parser.held) or self._stream.half

    # --- what is said ---

    async def _begin(self) -> None:
        """A run from here on, behind the interrupts that wait."""
        self._end()
        if self._constraint is None:
            self._constraint = await self.notation.constraint(cadenza.model.facts().stop_tokens)
        room = MOST_TOLD_TOKENS
        while self._queued and (room == MOST_TOLD_TOKENS or len(self._queued[0]) <= room):
            told = self._queued.popleft()
            self._context.fill(told)
            self.interrupts += 1
            room -= len(told)
        self._decoding = self._context.decode(max(1, self._left), sampler=self._sampler, **self._constraint)
        self._standing = 0
        self._give()

    def _end(self) -> None:
        """Of the run; what it was given too late waits again, before all else."""
        if self._decoding is None:
            return
        self._decoding.stop()
        self._count()
        self._queued.extendleft(reversed(self._decoding.waiting))
        self._given.clear()
        self._decoding = None

    async def _hear(self) -> None:
        """One more token, and the events that it completes."""
        assert self._decoding is not None
        token = await self._decoding.token()
        self._count()
        if token is not None:
            self.tokens += 1
            self._left -= 1
            self._events.extend(self._read(token))
            if self._parser.critical and self._parser.overlong:
                self._close_call()
            return
        finish = self._decoding.finish
        self._events.extend(self._parser.feed(rest) if (rest := self._stream.end()) else ())
        self._end()
        if finish == "stop-token":
            self._events.extend(self._parser.finish())
            self._parser, self._constraint, self._trapped = Parser(), None, False
            self.pause = "" if self._queued else "end"
        elif finish != "stop-sequence":
            self.pause = "length"

    def _read(self, token: int) -> list[Event]:
        name = self.notation.names.get(token)
        if name is None:
            said = self._stream.feed(token)
            return self._parser.words(said) if self.notation.reserved else self._parser.feed(said)
        before = self._parser.words(self._stream.end())
        return before + self._parser.delimiter(name)

    def _close_call(self) -> None:
        """A call that does not come to its end is ended for it; what it then says, its value tells the model."""
        self._end()
        self._context.fill(self.notation.written(END))
        rest = self._stream.end()
        if self.notation.reserved:
            self._events.extend(self._parser.words(rest) + self._parser.delimiter(END))
        else:
            self._events.extend(self._parser.feed(rest + END))
        self._constraint = None

    def _count(self) -> None:
        """Interrupts that stand now were given first."""
        assert self._decoding is not None
        come = self._decoding.interjections - self._standing
        for _ in range(come):
            self._given.popleft()
        self._standing += come
        self.interrupts += come
        if come:
            self._give()
