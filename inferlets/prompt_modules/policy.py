"""What of a prompt is read from files, and what is computed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal, get_args

from .assembly import Span, follows
from .layout import Layout, Piece
from .template import Tokens

Kind = Literal["full", "prefix", "modules", "scaffold", "epic"]
KINDS: tuple[Kind, ...] = get_args(Kind)


@dataclass(frozen=True)
class Policy:
    """How to reuse. `packed`: modules stand without gaps, in the order of the prompt; they were computed right at the
    beginning, and are moved. `rooted`: they are not computed alone, but after what is always before them: the text of
    the schema, with the begin token, and of the modules that they are in.

    full       nothing is reused
    prefix     what the prompt begins with, if it is all modules: exact
    modules    each module as it was encoded, alone (Gim et al., 2024). What the chat template writes between turns is
               computed: it is a few tokens, which would have seen nothing of the turn that they end
    scaffold   the same, but modules of a scaffold that are all imported as they were encoded together
    epic       modules, but the first `recompute` tokens of each are computed again, seeing what is before them
               (LegoLink; Hu et al., "EPIC", arXiv 2410.15332). What is exact already needs none of it
    """

    kind: Kind = "modules"
    recompute: int = 0
    packed: bool = False
    rooted: bool = False

    @classmethod
    def named(cls, name: str, packed: bool = False) -> Policy:
        """`full`, `modules` and so on, `epic-16`, or any of them as `rooted epic-16`. Raises ValueError."""
        *rooted, bare = name.rsplit(" ", 1)
        begin, _, count = bare.partition("-")
        kind = next((kind for kind in KINDS if kind == begin), None)
        if kind is None or (kind == "epic") != count.isdecimal() or rooted not in ([], ["rooted"]):
            raise ValueError(f"no policy {name!r}: there are full, prefix, modules, scaffold and epic-16, or so many")
        return cls(kind, int(count or 0), packed, bool(rooted))

    def __str__(self) -> str:
        """Its name."""
        return ("rooted " if self.rooted else "") + (f"epic-{self.recompute}" if self.kind == "epic" else self.kind)

    def apply(self, spans: Sequence[Span], layout: Layout) -> list[Span]:
        """The spans with what they are read from. The last token is always computed: from it the model goes on."""
        if self.kind == "full":
            return [replace(span, piece=None) for span in spans]
        if self.kind == "prefix":
            return last_computed(list(chained(spans)))
        spans = unglued(spans)
        if self.kind == "scaffold":
            spans = list(scaffolded(spans, layout))
        pieces = layout.pieces(self.packed, self.rooted)
        spans = [read_from(pieces[span.piece], span) if span.piece else span for span in spans]
        return last_computed(list(linked(spans, self.recompute)))


def unglued(spans: Sequence[Span]) -> list[Span]:
    """What the template writes is new, but for what everything begins with."""
    return [replace(span, piece=None) if at and span.glue else span for at, span in enumerate(spans)]


def chained(spans: Sequence[Span]) -> Iterator[Span]:
    """What the spans begin with becomes one piece, each part computed after what is before it."""
    count = next((at for at, span in enumerate(spans) if span.piece is None), len(spans))
    chain: Piece | None = None
    for span in spans[:count]:
        before = chain or Piece((), ())
        positions = (*before.positions, *range(span.start, span.end))
        chain = Piece((*before.tokens, *span.tokens), positions, chain)
    offset = 0
    for span in spans[:count]:
        yield replace(span, piece=chain, offset=offset)
        offset += len(span.tokens)
    yield from (replace(span, piece=None) for span in spans[count:])


def scaffolded(spans: Sequence[Span], layout: Layout) -> Iterator[Span]:
    """Members of scaffolds that are all there are read from those: from large scaffolds rather than small ones."""
    there = {span.path for span in spans if span.piece is not None}
    chosen: dict[str, Piece] = {}
    for paths, piece in sorted(layout.scaffolds, key=lambda each: -len(each[1].tokens)):
        if paths <= there and not paths & chosen.keys():
            chosen |= dict.fromkeys(paths, piece)
    for span in spans:
        if span.piece is not None and span.path in chosen:
            piece = chosen[span.path]
            offset = piece.positions.index(span.piece.positions[span.offset])
            yield replace(span, piece=piece, offset=offset)
        else:
            yield span


def read_from(piece: Piece, span: Span) -> Span:
    """The span, read from another making of its piece."""
    return replace(span, piece=piece, offset=span.offset + (len(piece.parent.tokens) if piece.parent else 0))


def linked(spans: Sequence[Span], count: int) -> Iterator[Span]:
    """The first `count` tokens of each run of a module's text are new, unless they are true as they stand."""
    left = 0
    for at, (span, true) in enumerate(zip(spans, truths(spans), strict=True)):
        if not at or not follows(spans[at - 1], span):
            left = 0 if true else count
        head = 0 if span.piece is None else min(left, len(span.tokens))
        left -= head
        yield from (part for part in halves(span, head) if part.tokens)


def truths(spans: Sequence[Span]) -> Iterator[bool]:
    """Whether what each span is read from saw, when it was computed, just what is before the span now. New spans do."""
    tokens: Tokens = ()
    positions: Tokens = ()
    for span in spans:
        piece, offset = span.piece, span.offset
        yield piece is None or (span.shift == 0 and len(tokens) == offset
                                and (piece.tokens[:offset], piece.positions[:offset]) == (tokens, positions))
        tokens += span.tokens
        positions += tuple(range(span.start, span.end))


def halves(span: Span, count: int) -> tuple[Span, Span]:
    """The first `count` tokens, new, and the rest as it was."""
    head = replace(span, tokens=span.tokens[:count], piece=None)
    return head, replace(span, tokens=span.tokens[count:], start=span.start + count, offset=span.offset + count)


def last_computed(spans: list[Span]) -> list[Span]:
    if not spans or spans[-1].piece is None:
        return spans
    last = spans[-1]
    rest = replace(last, tokens=last.tokens[:-1])
    end = Span(last.tokens[-1:], last.end - 1, None, 0, last.path)
    return [*spans[:-1], *([rest] if rest.tokens else []), end]
