"""`Matcher`: a place in a grammar, moved by tokens and taken back. What a program has a handle of.

    compiled ──▶ at its beginning ──▶ … ──▶ may end ──▶ ended, by a stop token of the model
       ▲                 │  ▲                │
       └── waiting       └──┴── roll back ───┘

Where the grammar may end the model's stop tokens are allowed, and nowhere else, unless it names them itself.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import numpy as np

from cadenza.kernel.device.batch import UInt8
from cadenza.kernel.grammar.trial import plain
from cadenza.kernel.handles import Waitable
from cadenza.kernel.limits import GRAMMAR_ADVANCE_SECONDS, GRAMMAR_TOKENS
from cadenza.kvfs.errors import Busy, CadenzaError, Invalid, LimitExceeded, NotReady

if TYPE_CHECKING:
    from llguidance import LLMatcher


class Beginning:
    """A compiled grammar, which many matchers begin at. `size`: tokens of the device's vocabulary; `end`: the token
    that stands for its end, one past the vocabulary it was compiled for; `held_bytes`: what it takes, about."""

    __slots__ = ("end", "held_bytes", "matcher", "size", "stops")

    def __init__(self, matcher: LLMatcher, end: int, size: int, stops: tuple[int, ...], held_bytes: int = 0) -> None:
        self.matcher, self.end, self.size, self.stops, self.held_bytes = matcher, end, size, stops, held_bytes


class Matcher(Waitable):
    """Ready when its grammar is compiled, or could not be. Methods raise what that failed with, or NotReady; those that
    move it raise Busy while a run does."""

    __slots__ = ("_beginning", "_error", "_mask", "_matcher", "_may_end", "changes", "ended", "moved_by_run", "tokens")

    def __init__(self) -> None:
        super().__init__()
        self._beginning: Beginning | None = None
        self._matcher: LLMatcher | None = None
        self._error: CadenzaError | None = None
        self._mask: UInt8 | None = None            # where it stands, if it was asked for
        self._may_end = False                      # likewise
        self.tokens = 0                            # since its beginning
        self.ended = False                         # the last of them was a stop token, outside of the grammar
        self.moved_by_run = False
        self.changes = 0

    def begin(self, beginning: Beginning) -> None:
        self._beginning, self._matcher = beginning, beginning.matcher.deep_copy()
        self.signal()

    def fail(self, error: CadenzaError) -> None:
        self._error = error
        self.signal()

    def check(self) -> None:
        """Raises NotReady, or why it could not be compiled."""
        if self._error is not None:
            raise self._error
        if self._matcher is None:
            raise NotReady("the grammar is not compiled yet; wait for its handle first")

    def fork(self) -> Matcher:
        """Another that stands where this one does."""
        matcher = self._idle()
        fork = Matcher()
        fork._beginning, fork._matcher = self._beginning, matcher.deep_copy()
        fork._mask, fork._may_end, fork.tokens, fork.ended = self._mask, self._may_end, self.tokens, self.ended
        fork.signal()
        return fork

    @property
    def mask(self) -> UInt8:
        """Packed bits, [⌈vocabulary / 8⌉]: what may come next; none at the end. Raises LimitExceeded."""
        self.check()
        if self._mask is None:
            self._mask = self._look()
        return self._mask

    @property
    def may_end(self) -> bool:
        """Raises LimitExceeded."""
        return bool(self.mask is not None and self._may_end)

    def forced(self) -> list[int]:
        """The tokens that must come next, as the model would spell them; none where there is a choice."""
        matcher = self._idle()
        return [] if self.ended else matcher.compute_ff_tokens()[:GRAMMAR_TOKENS]

    def advance(self, tokens: list[int]) -> None:
        """Raises Invalid, naming the first token that does not fit, LimitExceeded; then nothing has changed. Whoever
        else runs waits meanwhile, so there is little time for it."""
        self._idle()
        if len(tokens) > GRAMMAR_TOKENS:
            raise LimitExceeded(f"{len(tokens)} tokens at once; at most {GRAMMAR_TOKENS}: give them in parts",
                                "grammar_tokens")
        until = time.perf_counter() + GRAMMAR_ADVANCE_SECONDS
        for at, token in enumerate(tokens):
            if at and time.perf_counter() > until:
                self._take_back(at)
                raise LimitExceeded(f"{at} of {len(tokens)} took {GRAMMAR_ADVANCE_SECONDS * 1000:g} ms, all that one "
                                    "call may take: give them in parts, or make the grammar simpler",
                                    "grammar_advance_seconds")
            if not self._move(token):
                self._take_back(at)
                raise Invalid(f"token {token}, the {at + 1}th of {len(tokens)}, does not fit the grammar "
                              f"{self.tokens} tokens after its beginning", "tokens")

    def roll_back(self, tokens: int) -> None:
        """Raises Invalid if there were not so many."""
        self._idle()
        if tokens > self.tokens:
            raise Invalid(f"{tokens} tokens cannot be taken back: the grammar has had {self.tokens}", "tokens")
        self._take_back(tokens)

    def follow(self, token: int) -> None:
        """As `advance`, for the run that moves it."""
        if not self._move(token):
            raise Invalid(f"token {token} does not fit the grammar {self.tokens} tokens after its beginning", "grammar")

    def take_back(self, tokens: int) -> None:
        """As `roll_back`, for the run that moves it."""
        self._take_back(tokens)

    def _idle(self) -> LLMatcher:
        self.check()
        if self.moved_by_run:
            raise Busy("a run moves this grammar: let it end, stop it, or use a fork made before")
        assert self._matcher is not None
        return self._matcher

    def _move(self, token: int) -> bool:
        """Whether `token` fits: then it stands behind it."""
        assert self._matcher is not None
        assert self._beginning is not None
        if self.ended or token >= self._beginning.end:
            return False
        if self._fits(self._matcher, token):
            if not self._matcher.consume_token(token):
                raise self._too_much()
        elif token in self._beginning.stops and self.may_end:
            self.ended = True
        else:
            return False
        self._changed()
        self.tokens += 1
        return True

    def _fits(self, matcher: LLMatcher, token: int) -> bool:
        """What the mask allows does, stop tokens apart; what it does not may: another spelling of what is forced."""
        assert self._beginning is not None
        if self._mask is not None and token not in self._beginning.stops and self._mask[token >> 3] >> (token & 7) & 1:
            return True
        return matcher.validate_tokens([token]) == 1

    def _take_back(self, tokens: int) -> None:
        if tokens and self._error is None:
            assert self._matcher is not None
            self.tokens -= tokens
            steps, self.ended = tokens - self.ended, False
            assert not steps or self._matcher.rollback(steps), self._matcher.get_error()
            self._changed()

    def _changed(self) -> None:
        self._mask = None
        self.changes += 1

    def _look(self) -> UInt8:
        assert self._matcher is not None
        assert self._beginning is not None
        size, end = self._beginning.size, self._beginning.end
        mask = np.zeros(-(-size // 8), np.uint8)
        if self.ended:
            self._may_end = True
            return mask
        bits = np.frombuffer(self._matcher.compute_bitmask(), np.uint8)
        if self._matcher.is_error():
            raise self._too_much()
        mask[: -(-end // 8)] = bits[: -(-end // 8)]
        if end % 8:
            mask[end >> 3] &= (1 << end % 8) - 1
        self._may_end = bool(bits[end >> 3] >> (end & 7) & 1)
        if self._may_end:
            for stop in self._beginning.stops:
                mask[stop >> 3] |= 1 << (stop & 7)
        return mask

    def _too_much(self) -> CadenzaError:
        """It is of no use any more."""
        assert self._matcher is not None
        self._error = LimitExceeded(f"the grammar is too much work for one token ({plain(self._matcher.get_error())}): "
                                    "make it simpler", "grammar_step_fuel")
        return self._error
