"""`Guide`: what a run may sample next, by what it has sampled; and when its program may put in a word.

There are two kinds. A run may be given *states*, as a small automaton over tokens. It begins in the first. A sampled
token for which the state has a move leads to another, any other token to the one that it names for all others, or
nowhere. A state says which tokens may be sampled in it, and whether it is open: interjections wait until it is. And it
may be given a *grammar*, with states or without: what both allow may be sampled. Tokens that the program puts in move
nothing.

Steps are submitted before it is known what the ones before them sampled. With states, a sample may so have been drawn
under another state's mask than its own. A greedy one drawn under `loosest`, which allows whatever some state allows, is
the right one if its own state allows it; any other was drawn in vain, and is drawn again. A grammar has too many states
for that: its samples are drawn under their own masks, which come late (`LateMask`), or not before those are known.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import reduce
from typing import NamedTuple, Protocol

import numpy as np

from cadenza.kernel.device.batch import UInt8
from cadenza.kernel.grammar.matcher import Matcher
from cadenza.kernel.limits import GRAMMAR_DRAFT_SECONDS
from cadenza.kvfs.errors import Busy, Invalid, LimitExceeded


class Guide(Protocol):
    """One run's way. `mask`: packed bits, [⌈vocabulary / 8⌉], of what may be sampled after all that was followed, none
    allows all; `open`: whether interjections go in there; `exact`: samples are drawn under their own mask only."""

    @property
    def mask(self) -> UInt8 | None: ...

    @property
    def open(self) -> bool: ...

    @property
    def exact(self) -> bool: ...

    @property
    def loosest(self) -> UInt8 | None: ...

    def begin(self) -> None:
        """The run begins."""

    def follow(self, token: int) -> None:
        """`token` was sampled. Raises LimitExceeded when what comes next is too much work."""

    def end(self) -> str | None:
        """How the run ends where it stands, if nothing may follow: `finish`. Raises Invalid where it should not."""

    def keep(self, tokens: int) -> None:
        """Only so many of the sampled tokens are kept."""

    def leave(self) -> None:
        """The run is over."""


class LateMask:
    """Of a sample in a step that is submitted before it is known; given when the step before has come back."""

    __slots__ = ("_guide", "anything")

    def __init__(self, guide: Guide, vocabulary_size: int) -> None:
        self._guide = guide
        self.anything = np.full(-(-vocabulary_size // 8), 255, np.uint8)

    def mask(self) -> UInt8:
        """Anything, if nobody wants the sample any more."""
        mask = self._guide.mask
        return self.anything if mask is None or not mask.any() else mask


class State(NamedTuple):
    """`mask`: packed bits, [⌈vocabulary / 8⌉]; none allows all. `moves`: the next state, by token; after any other it
    is `otherwise`, or the same."""

    mask: UInt8 | None
    moves: Mapping[int, int]
    otherwise: int | None
    open: bool


class States:
    """One run's way through its states. `mask` of a run without states holds throughout."""

    __slots__ = ("_state", "_states", "loosest", "mask", "open")
    exact = False

    def __init__(self, states: Sequence[State], mask: UInt8 | None = None) -> None:
        """Raises Invalid when a state and `mask` together leave no token, or a move leads nowhere."""
        self._states = [state._replace(mask=mask if state.mask is None else both(state.mask, mask, f"state {number}"))
                        for number, state in enumerate(states)]
        astray = [move for state in states for move in (*state.moves.values(), state.otherwise or 0)
                  if move >= len(states)]
        if astray:
            raise Invalid(f"a move leads to state {astray[0]}; the run has {len(states)} states, from 0", "states")
        masks = [state.mask for state in self._states if state.mask is not None]
        self.loosest: UInt8 | None = reduce(np.bitwise_or, masks) if len(masks) == len(states) else None
        self._enter(0)

    def follow(self, token: int) -> None:
        """`token` was sampled."""
        state = self._states[self._state]
        move = state.moves.get(token, state.otherwise)
        if move is not None:
            self._enter(move)

    def begin(self) -> None:
        """An automaton is a run's own."""

    def end(self) -> None:
        """Something may follow in every state."""

    def keep(self, tokens: int) -> None:
        """Likewise."""

    def leave(self) -> None:
        """Likewise."""

    def _enter(self, number: int) -> None:
        self._state = number
        state = self._states[number]
        self.mask, self.open = state.mask, state.open


class Grammar:
    """One run's way through a grammar, and through `states` if it has them. `mask`, the run's own, holds throughout;
    with states it is in theirs."""

    __slots__ = ("_changes", "_matcher", "_own", "_start", "_states", "mask")
    exact = True
    loosest: UInt8 | None = None

    def __init__(self, matcher: Matcher, states: States | None = None, mask: UInt8 | None = None) -> None:
        """Raises Busy when another run moves the matcher, Invalid when nothing may be sampled, NotReady."""
        matcher.check()
        if matcher.moved_by_run:
            raise Busy("another run moves this grammar: let it end, stop it, or fork the grammar")
        self._matcher, self._states, self._own = matcher, states, mask
        self._start = matcher.tokens
        self._changes = -1
        self._look()
        if self.end() is not None:
            raise Invalid("the grammar has ended, or may go on only with what the mask or the states hide", "grammar")

    def begin(self) -> None:
        self._matcher.moved_by_run = True

    @property
    def open(self) -> bool:
        return self._states is None or self._states.open

    def follow(self, token: int) -> None:
        self._matcher.follow(token)
        if self._states is not None:
            self._states.follow(token)
        self._look()

    def masks_along(self, tokens: Sequence[int], parents: Sequence[int]) -> list[UInt8 | None]:
        """What may be sampled behind each token of a draft, the root first; None where the token may not come, where
        nothing may follow, or where GRAMMAR_DRAFT_SECONDS were over. Only before the run begins."""
        masks: list[UInt8 | None] = [self.mask, *(None for _ in parents)]
        ahead, until = self._matcher.fork(), time.perf_counter() + GRAMMAR_DRAFT_SECONDS

        def walk(parent: int) -> None:
            for number, each in enumerate(parents, 1):
                if each == parent and allows(masks[parent], tokens[number]) and time.perf_counter() < until:
                    ahead.follow(tokens[number])
                    mask = ahead.mask if self._own is None else ahead.mask & self._own
                    if mask.any():
                        masks[number] = mask
                        walk(number)
                    ahead.take_back(1)

        with suppress(LimitExceeded):                            # whatever comes behind it is too much work
            walk(0)
        return masks

    def end(self) -> str | None:
        if self._matcher.ended:
            return "stop-token"
        if self.mask.any():
            return None
        if self._matcher.may_end:
            return "grammar-end"
        raise Invalid("nothing is left to sample: the grammar wants to go on, only with what the mask or the states of "
                      "the run hide", "grammar")

    def keep(self, tokens: int) -> None:
        if self._changes in (-1, self._matcher.changes):
            self._matcher.take_back(max(0, self._matcher.tokens - self._start - tokens))
            self._changes = self._changes if self._changes == -1 else self._matcher.changes

    def leave(self) -> None:
        if self._changes == -1:
            self._matcher.moved_by_run = False
            self._changes = self._matcher.changes

    def _look(self) -> None:
        other = self._own if self._states is None else self._states.mask
        self.mask: UInt8 = self._matcher.mask if other is None else self._matcher.mask & other


def unknown_mask(guide: Guide, vocabulary_size: int, *, greedy: bool) -> UInt8 | LateMask | None:
    """What serves best for a sample while it is not known what those before it are."""
    if guide.exact:
        return LateMask(guide, vocabulary_size)
    return guide.loosest if greedy else guide.mask


def well_drawn(guide: Guide, mask: UInt8 | LateMask | None, token: int, *, greedy: bool) -> bool:
    """Whether `token`, drawn under `mask`, is what the guide's own mask gives."""
    return guide.exact or mask is guide.mask or (mask is guide.loosest and greedy and allows(guide.mask, token))


def allows(mask: UInt8 | None, token: int) -> bool:
    return mask is None or bool(mask[token >> 3] >> (token & 7) & 1)


def both(own: UInt8, mask: UInt8 | None, what: str) -> UInt8:
    """What both allow. Raises Invalid if that is nothing."""
    left: UInt8 = own if mask is None else own & mask
    if not left.any():
        raise Invalid(f"{what} and the mask together hide every token", "mask")
    return left
