"""`Guide`: what a run may sample next, by what it has sampled; and when its program may put in a word.

A run may be given states, as a small automaton over tokens. It begins in the first. A sampled token for which the state
has a move leads to another, any other token to the one that it names for all others, or nowhere. A state says which
tokens may be sampled in it, and whether it is open: interjections wait until it is. Tokens that the program puts in
move nothing.

Steps are submitted before it is known what the ones before them sampled, so a sample may have been drawn under another
state's mask than its own. A greedy one drawn under `loosest`, which allows whatever some state allows, is the right one
if its own state allows it; any other was drawn in vain, and is drawn again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import reduce
from typing import NamedTuple

import numpy as np

from cadenza.kernel.device.batch import UInt8
from cadenza.kvfs.errors import Invalid


class State(NamedTuple):
    """`mask`: packed bits, [⌈vocabulary / 8⌉]; none allows all. `moves`: the next state, by token; after any other it
    is `otherwise`, or the same."""

    mask: UInt8 | None
    moves: Mapping[int, int]
    otherwise: int | None
    open: bool


class Guide:
    """One run's way through its states. `mask` of a run without states holds throughout."""

    __slots__ = ("_state", "_states", "loosest", "mask", "open")

    def __init__(self, states: Sequence[State], mask: UInt8 | None = None) -> None:
        """Raises Invalid when a state and `mask` together leave no token, or a move leads nowhere."""
        self._states = [state._replace(mask=_both(state.mask, mask, number)) for number, state in enumerate(states)]
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

    def allows(self, token: int) -> bool:
        """Whether it may be sampled now."""
        return self.mask is None or bool(self.mask[token >> 3] >> (token & 7) & 1)

    def _enter(self, number: int) -> None:
        self._state = number
        state = self._states[number]
        self.mask, self.open = state.mask, state.open


def _both(own: UInt8 | None, mask: UInt8 | None, number: int) -> UInt8 | None:
    if own is None or mask is None:
        return mask if own is None else own
    both: UInt8 = own & mask
    if not both.any():
        raise Invalid(f"state {number} and the run's mask together hide every token", "states")
    return both
