"""A prompt put together: which tokens stand at which positions, and what each could be read from.

In its slots, as the paper has it, every module stands where the layout says, and new text goes into the gaps that the
prompt leaves between. Packed, everything moves up: no gaps, modules in the order of the prompt. Tokens are the same.

    layout       begin │ A    │ B   │ C       │ F
    <A/> t <C/>  begin │ A    │ t   │ C       │ F │ answer        slots: t stands in the gap that B leaves
                 begin │ A    │ t │ C       │ F │ answer          packed: as if B had never been

New text stands after the import before it, and before the import after it. What follows the last import stands after
everything; but text goes on in the turn of the schema that its import is in, until the prompt opens a turn of its own.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from .elements import Prompt
from .errors import DoesNotFit
from .layout import Choice, Layout, Piece, Place, Placed, Room, Said, Words
from .selection import Chosen, New, select
from .template import Tokens


@dataclass(frozen=True)
class Span:
    """Tokens at the positions from `start` on. `piece` holds them from `offset` on; None: they are new. `path` is that
    of the module whose text they are, if they are a module's; `glue`: they are the chat template's."""

    tokens: Tokens
    start: int
    piece: Piece | None = None
    offset: int = 0
    path: str | None = None
    glue: bool = False

    @property
    def end(self) -> int:
        return self.start + len(self.tokens)

    @property
    def shift(self) -> int:
        """How far it stands from where it stands in its piece."""
        return self.start - self.piece.positions[self.offset] if self.piece else 0


def assemble(layout: Layout, prompt: Prompt, packed: bool = False, answer: bool = True) -> list[Span]:
    """All tokens of a prompt, by position. `answer`: the opening of the assistant's answer follows.

    Raises MarkupError of some kind, with the line.
    """
    root = select(layout, prompt)
    made: Assembly = Packed() if packed else Slots()
    made.root(root)
    made.at_end([New(layout.template.answer)] if answer else [])
    return joined(sorted((span for span in made.spans if span.tokens), key=lambda span: span.start))


def joined(spans: Iterable[Span]) -> list[Span]:
    """Spans that go on one in the other, in their places and in their piece, are one."""
    made: list[Span] = []
    for span in spans:
        last = made[-1] if made else None
        if last and follows(last, span) and beside(last) == (span.start, span.shift, span.glue):
            made[-1] = replace(last, tokens=last.tokens + span.tokens)
        else:
            made.append(span)
    return made


def beside(span: Span) -> tuple[int, int, bool]:
    """Start, shift and glue of what would go on where it ends."""
    return span.end, span.shift, span.glue


def follows(before: Span, span: Span) -> bool:
    """Whether the one goes on where the other ends, in the piece of both."""
    return span.piece is not None and before.piece == span.piece and before.offset + len(before.tokens) == span.offset


def parted(scope: Chosen, before: Chosen | None, turn: Said | None) -> tuple[Sequence[New], Sequence[New]]:
    """The new text after the import `before`, or before the first: what goes on in a turn of the schema, and what is
    outside of it."""
    news = scope.news(before)
    at = next((at for at, new in enumerate(news) if new.opens), len(news))
    if turn is None or (before is None and at < len(news)):
        return (), news
    return news[:at], news[at:]


class Assembly:
    """What both ways have in common."""

    def __init__(self) -> None:
        self.spans: list[Span] = []

    def root(self, root: Chosen) -> None:
        raise NotImplementedError

    def at_end(self, news: Iterable[New]) -> None:
        """After everything."""
        end = max((span.end for span in self.spans), default=0)
        for new in news:
            self.spans.append(Span(new.tokens, end))
            end += len(new.tokens)

    def own(self, chosen: Chosen, place: Words | Room, start: int) -> int:
        """Text or a parameter of a chosen module, from `start`. Answers where it ends."""
        tokens = place.tokens if isinstance(place, Words) else place.default or ()
        piece = chosen.placed.piece
        if isinstance(place, Room) and place.parameter.name in chosen.arguments:
            tokens, piece = chosen.arguments[place.parameter.name], None
        glue = isinstance(place, Words) and place.glue
        span = Span(tokens, start, piece, place.offset, chosen.placed.path, glue)
        self.spans.append(span)
        return span.end


class Slots(Assembly):
    """Modules in their places; new text in the first gap that holds it."""

    def root(self, root: Chosen) -> None:
        self._module(root)
        self._news(root)

    def _module(self, chosen: Chosen) -> None:
        for place in flat(chosen.placed.places):
            self.own(chosen, place, place.start)
        for each in chosen.imports:
            self._module(each)

    def _news(self, chosen: Chosen) -> None:
        imports = chosen.imports
        for before, after in zip([None, *imports], [*imports, None], strict=True):
            if before is not None:
                self._news(before)
            self._between(chosen, before, after)

    def _between(self, scope: Chosen, before: Chosen | None, after: Chosen | None) -> None:
        """New text of `scope` between two of its imports; None: its beginning or end."""
        near = before or after
        turn = near.turn if near else None
        inside, outside = parted(scope, before, turn)
        if turn is not None and inside:
            self._inside(inside, turn, before, after)
        if after is None and not scope.placed.path:
            self.at_end(outside)
        else:
            self._outside(outside, scope, before, after)

    def _inside(self, news: Sequence[New], turn: Said, before: Chosen | None, after: Chosen | None) -> None:
        low = before.placed.end if before else turn.places[0].end
        near = after is not None and after.turn is turn and after.placed.start >= low
        self._fit(news, low, after.placed.start if after and near else turn.places[-1].start)

    def _outside(self, news: Sequence[New], scope: Chosen, before: Chosen | None, after: Chosen | None) -> None:
        low = (before.turn or before.placed).end if before else scope.placed.start
        high = (after.turn or after.placed).start if after else scope.placed.end
        self._fit(news, low, high if high >= low else scope.placed.end)

    def _fit(self, news: Sequence[New], low: int, high: int) -> None:
        """Puts text into the first gap from `low` to `high` that holds it. Raises DoesNotFit."""
        needed = sum(len(new.tokens) for new in news)
        if not needed:
            return
        gaps = list(self._gaps(low, high))
        start = next((start for start, end in gaps if end - start >= needed), None)
        if start is None:
            widest = max((end - start for start, end in gaps), default=0)
            raise DoesNotFit(f"{needed} tokens of new text fall into a gap of {widest}: shorten it, make a "
                             "parameter's argument, or pack the prompt", news[0].line)
        for new in news:
            self.spans.append(Span(new.tokens, start))
            start += len(new.tokens)

    def _gaps(self, low: int, high: int) -> Iterator[tuple[int, int]]:
        for span in sorted((span for span in self.spans if span.tokens), key=lambda span: span.start):
            if span.start > low and low < high:
                yield low, min(span.start, high)
            low = max(low, span.end)
        if low < high:
            yield low, high


class Packed(Assembly):
    """No gaps, modules in the order of the prompt among those that stand beside each other."""

    def __init__(self) -> None:
        super().__init__()
        self._at = 0

    def root(self, root: Chosen) -> None:
        self._module(root)

    def _module(self, chosen: Chosen) -> None:
        """The module itself and all in it; at the end, what was not said before."""
        self._places(chosen, chosen.placed.places, None)
        last = chosen.imports[-1] if chosen.imports else None
        if last is None or not chosen.placed.path:
            self._emit(parted(chosen, last, last.turn if last else None)[1])

    def _places(self, chosen: Chosen, places: Sequence[Place], turn: Said | None) -> None:
        here = {placed.path for place in places for placed in members(place)}
        queue = [each for each in chosen.imports if each.placed.path in here]
        taken = {each.placed.path for each in queue}
        for place in places:
            if isinstance(place, Words | Room):
                self._at = self.own(chosen, place, self._at)
            elif isinstance(place, Said):
                self._said(chosen, place)
            elif any(placed.path in taken for placed in members(place)):
                self._import(chosen, queue.pop(0), turn)

    def _import(self, scope: Chosen, chosen: Chosen, turn: Said | None) -> None:
        """An import, with the new text before it if it is the first, and after it."""
        part = 1 if turn is None else 0
        if chosen is scope.imports[0]:
            self._emit(parted(scope, None, turn)[part])
        self._module(chosen)
        if turn is not None or scope.placed.path or chosen is not scope.imports[-1]:
            self._emit(parted(scope, chosen, turn)[part])

    def _said(self, chosen: Chosen, said: Said) -> None:
        """A turn of the schema, with the turns of the prompt that stand before and after it."""
        here = [each for each in chosen.imports if each.turn is said]
        if here and here[0] is chosen.imports[0]:
            self._emit(parted(chosen, None, said)[1])
        self._places(chosen, said.places, said)
        if here and here[-1] is not chosen.imports[-1]:
            self._emit(parted(chosen, here[-1], said)[1])

    def _emit(self, news: Iterable[New]) -> None:
        for new in news:
            self.spans.append(Span(new.tokens, self._at))
            self._at += len(new.tokens)


def flat(places: Iterable[Place]) -> Iterator[Words | Room]:
    """A module's own text and parameters."""
    for place in places:
        if isinstance(place, Words | Room):
            yield place
        elif isinstance(place, Said):
            yield from flat(place.places)


def members(place: Place) -> Sequence[Placed]:
    return place.members if isinstance(place, Choice) else (place,) if isinstance(place, Placed) else ()
