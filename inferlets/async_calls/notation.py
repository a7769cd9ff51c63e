"""How a model writes CML: with reserved tokens, if its vocabulary has them, or as text.

Either way the kernel is told what may be sampled (`constraint`), and nothing but well-formed CML can be. With reserved
tokens that is states of the run: interrupts wait for the end of a critical section without the program being asked. As
text the delimiters may be cut into tokens anywhere, so it is a grammar of characters, and the program reads what was
said and stops the run where an interrupt goes in.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import cadenza
from cadenza import Grammar, Mask, State

from .cml import CALL, END, HEAD, INTR, RESERVED, TRAP, first_reserved
from .rules import RULES

OUTSIDE, OPENED, NAMED, CODE, GOES_ON, TRAPPED = range(6)


@dataclass(frozen=True)
class Notation:
    """`tokens`: the reserved tokens by their names; none where CML is written as text."""

    tokens: dict[str, int]

    @classmethod
    def of_model(cls) -> Notation:
        """Of the model beside which this program runs."""
        written = {name: cadenza.model.tokenize(name, special=True) for name in RESERVED}
        if all(len(tokens) == 1 for tokens in written.values()):
            return cls({name: tokens[0] for name, tokens in written.items()})
        return cls({})

    @property
    def reserved(self) -> bool:
        return bool(self.tokens)

    @cached_property
    def names(self) -> dict[int, str]:
        """The reserved tokens' names."""
        return {token: name for name, token in self.tokens.items()}

    async def constraint(self, stop_tokens: frozenset[int]) -> dict[str, Any]:
        """What `Context.decode` is given, run after run, from outside of a critical section on. A trap ends a run: the
        program goes on when something comes. As text the program itself stops behind one; the grammar moves with what
        is said, so it is of one speech alone."""
        if not self.reserved:
            return {"grammar": await Grammar.lark(RULES).compile()}
        return {"states": self.states(stop_tokens), "stop_sequences": [[self.tokens[TRAP], self.tokens[END]]]}

    def states(self, stop_tokens: frozenset[int]) -> list[State]:
        """Of a model with reserved tokens. Only OUTSIDE is open; the text ends only there.

            OUTSIDE ──[CALL]──▶ OPENED ──▶ NAMED ──[HEAD]──▶ CODE ──▶ GOES_ON ──[END]──▶ OUTSIDE
               └─────[TRAP]──▶ TRAPPED ──[END]──▶ OUTSIDE     └──[END]──▶ OUTSIDE
        """
        call, trap, head, end = (self.tokens[name] for name in (CALL, TRAP, HEAD, END))
        return [
            State(self._without(HEAD, END, INTR), {call: OPENED, trap: TRAPPED}),
            State(self._without(*RESERVED, stops=stop_tokens), otherwise=NAMED, open=False),
            State(self._without(CALL, TRAP, INTR, stops=stop_tokens), {head: CODE, end: OUTSIDE}, open=False),
            State(self._without(*RESERVED, stops=stop_tokens), otherwise=GOES_ON, open=False),
            State(self._without(CALL, TRAP, INTR, HEAD, stops=stop_tokens), {end: OUTSIDE}, open=False),
            State(Mask([end]), {end: OUTSIDE}, open=False),
        ]

    def written(self, text: str) -> list[int]:
        """The tokens of CML that the program writes. What stands between the delimiters is plain text, whatever its
        words."""
        if not self.reserved:
            return cadenza.model.tokenize(text)
        tokens: list[int] = []
        for piece, name in pieces(text):
            tokens += cadenza.model.tokenize(piece) if piece else []
            tokens += [self.tokens[name]] if name else []
        return tokens

    def _without(self, *names: str, stops: frozenset[int] = frozenset()) -> Mask:
        return Mask([*(self.tokens[name] for name in names), *sorted(stops)], allowed=False)


def pieces(text: str) -> list[tuple[str, str]]:
    """The text cut behind each delimiter: what stands before it, and which it is; none at the end."""
    found: list[tuple[str, str]] = []
    while place := first_reserved(text):
        at, name = place
        found.append((text[:at], name))
        text = text[at + len(name) :]
    return [*found, (text, "")]
