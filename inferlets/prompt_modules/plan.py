"""What is to be done for one prompt: which files are read, which tokens computed, and how true the outcome is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from .assembly import Span, assemble
from .elements import Prompt, Turn
from .layout import Layout, Piece
from .policy import Policy, truths
from .template import Tokens

Exactness = Literal["exact", "approximate"]
Answer = Literal["none", "due", "open"]
"""Whether the assistant speaks at the end: it is no chat, a turn has ended, or an answer is opened."""


@dataclass(frozen=True)
class View:
    """`count` tokens of a piece from `first` on; `shift` is added to their positions."""

    piece: Piece
    first: int
    count: int
    shift: int = 0

    @property
    def whole(self) -> bool:
        """Whether it is the piece as it stands."""
        return self.first == 0 and self.count == len(self.piece.tokens) and self.shift == 0

    @property
    def tokens(self) -> Tokens:
        return self.piece.tokens[self.first : self.first + self.count]

    @property
    def positions(self) -> Tokens:
        return tuple(at + self.shift for at in self.piece.positions[self.first : self.first + self.count])


@dataclass(frozen=True)
class Plan:
    """`views` are read, then `tokens` are computed at `positions`, which grow; a token sees the positions before its
    own. There is one token at least, and the last is the last of all."""

    policy: Policy
    views: tuple[View, ...]
    tokens: Tokens
    positions: Tokens
    exactness: Exactness
    answer: Answer = "none"

    @property
    def reused_tokens(self) -> int:
        return sum(view.count for view in self.views)

    @property
    def computed_tokens(self) -> int:
        return len(self.tokens)

    @property
    def read_tokens(self) -> Tokens:
        """The tokens of the views, in the order they are read."""
        return tuple(token for view in self.views for token in view.tokens)

    @property
    def ordered_tokens(self) -> Tokens:
        """All tokens, read or computed, by position."""
        placed = [pair for view in self.views for pair in zip(view.positions, view.tokens, strict=True)]
        return tuple(token for _, token in sorted([*placed, *zip(self.positions, self.tokens, strict=True)]))


def make_plan(layout: Layout, prompt: Prompt, policy: Policy | None = None, answer: bool = True) -> Plan:
    """Raises MarkupError of some kind, with the line; ValueError for a prompt of no tokens.

    `answer`: the opening of the assistant's answer stands at the end of a chat.
    """
    policy = policy or Policy()
    chat = layout.has_turns or any(isinstance(item, Turn) for item in prompt.children)
    spans = policy.apply(assemble(layout, prompt, policy.packed, chat and answer), layout)
    if not spans:
        raise ValueError("the prompt is empty: it has no tokens")
    new = [span for span in spans if span.piece is None]
    tokens = tuple(token for span in new for token in span.tokens)
    positions = tuple(position for span in new for position in range(span.start, span.end))
    return Plan(policy, tuple(views_of(spans)), tokens, positions, "exact" if all(truths(spans)) else "approximate",
                "none" if not chat else "open" if answer else "due")


def views_of(spans: Sequence[Span]) -> list[View]:
    """What is read, as few views as there can be."""
    views: list[View] = []
    for span in spans:
        if span.piece is None:
            continue
        view = View(span.piece, span.offset, len(span.tokens), span.shift)
        last = views[-1] if views else None
        if last and last.piece == view.piece and (last.first + last.count, last.shift) == (view.first, view.shift):
            views[-1] = View(last.piece, last.first, last.count + view.count, last.shift)
        else:
            views.append(view)
    return views
