"""Which passes share the step: a policy that decides, and does nothing else.

    in hand, decoding ────────────────▶ a row each; in turn, if there are more of them than places
    to be fed ──┬─ first of the lines ▶ half of what is left for inputs
                └─ all of them ───────▶ the other half: those with the least left first
    turned away for want of room ─────▶ a token each: enough to be let in by, when there is room

See docs/scheduling.md for what follows from that: who waits how long at most.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from operator import attrgetter
from typing import TYPE_CHECKING, Protocol

from cadenza.kernel.breadth import PLAIN
from cadenza.kernel.limits import AGING_SECONDS, BESIDE_DECODES_TOKENS

if TYPE_CHECKING:
    from cadenza.kernel.ledger import Line
    from cadenza.kernel.passes import Work

Share = tuple["Work", int]

_BY_TURN = attrgetter("turn")
KNOCKS = 8           # of those turned away, how many may try in one step


class BatchPolicy(Protocol):
    """Decides only: the same work in the same state gives the same choice."""

    def choose(self, work: Iterable[Work], now: float) -> list[Share]:
        """Who gets a row in the next step, and of how many tokens; empty when nobody wants one. Work that is not in
        hand is let in in this order, and nobody overtakes who finds no room. `now`: in seconds of the event loop."""

    def again(self, now: float) -> float | None:
        """When to ask again after an empty choice, though nothing has happened; None: not before something does."""


@dataclass(slots=True)
class WorkConserving:
    """Everything that fits, at once. When not everything does: higher priority first, but who was passed over for
    AGING_SECONDS before it, once; among users, who was served least. No input holds up the others for longer than half
    of the room goes to it, and none the decodes: a step in which somebody decodes has `beside_decodes` tokens, or if
    the decodes are many, a quarter more than they are. Set that to what a step has room for without taking longer.

    While a step is under way, a small one of others is not formed until it is over, with all who have come by then: the
    device is busy meanwhile. So programs that ask for one token after another stay together; else they would fall apart
    into as many groups as steps are submitted ahead."""

    step_tokens: int
    step_rows: int
    beside_decodes: int = BESIDE_DECODES_TOKENS

    def choose(self, work: Iterable[Work], now: float) -> list[Share]:
        decodes: list[Share] = []
        broad: list[Work] = []                           # decodes that read many segments: few of those fit into a step
        inputs: list[Work] = []
        away = False                                     # somebody waits for a step under way, and then may come back
        for each in work:
            if each.steady:
                decodes.append((each, 1))
            elif each.prefilling or not each.admitted or each.missing:
                inputs.append(each)
            elif each.wanted():
                if each.breadth is PLAIN:
                    decodes.append((each, 1))
                else:
                    broad.append(each)
            elif each.under_way:
                away = True
        shares = decodes
        if inputs or broad or len(decodes) > min(self.step_rows, self.step_tokens):
            shares = self._share_out(decodes, broad, inputs, now)
        return [] if away and self._may_wait(shares) else shares

    def again(self, now: float) -> float | None:
        return None

    def _may_wait(self, shares: list[Share]) -> bool:
        """Nobody goes on from the step under way, and few would be kept waiting."""
        if any(work.under_way for work, _ in shares):
            return False
        return len(shares) <= self.step_rows // 2 and sum(count for _, count in shares) < self.beside_decodes

    def _share_out(self, decodes: list[Share], broad: list[Work], inputs: list[Work], now: float) -> list[Share]:
        wants = [(work, left) for work in inputs if (left := _left(work))]
        places = min(_beside(self.step_rows), _beside(self.step_tokens)) if wants else min(
            self.step_rows, self.step_tokens)
        if len(decodes) + len(broad) > places:
            decodes, broad = _apart(_in_turn([*(work for work, _ in decodes), *broad], places))
        count = len(decodes) + len(broad)
        fed = self._feed(wants, self._room(count), self.step_rows - count, now) if wants else []
        return decodes + _rotated(broad, fed) if broad else decodes + fed

    def _room(self, decodes: int) -> int:
        """Tokens for inputs in a step that has so many decodes."""
        room = self.step_tokens - decodes
        if not decodes:
            return room
        return min(room, max(self.beside_decodes - decodes, self.beside_decodes // 4, 1))

    def _feed(self, wants: list[Share], room: int, rows: int, now: float) -> list[Share]:
        """Who is fed, the first of the lines before all others."""
        if min(room, rows) < 1:
            return []
        if len(wants) == 1:
            work, left = wants[0]
            return [(work, min(left, room))]
        waiting, knocking = _gate([want for want in wants if not want[0].admitted], now)
        hungry = [want for want in wants if want[0].admitted] + waiting
        if knocking and hungry:
            room, rows = max(1, room - len(knocking)), max(1, rows - len(knocking))
        if len(hungry) > rows or sum(left for _, left in hungry) > room:
            hungry = self._portions(hungry, room, rows, now)
        return hungry + [(work, 1) for work, _ in knocking]

    def _portions(self, wants: list[Share], room: int, rows: int, now: float) -> list[Share]:
        """Half for the first of the lines; the rest for those with the least left, but not before a higher priority,
        nor before a user who was served far less."""
        first, left = min(wants, key=lambda want: (_urgency(want[0].line, 0, now), _place(want[0])))
        counts = {first: min(left, -(-room // 2))}
        room -= counts[first]
        enough = min(want[0].line.account.served for want in wants) + 2 * self.step_tokens
        for work, left in sorted(wants, key=lambda want: (
                -want[0].priority, want[0].line.account.served > enough, want[1], _place(want[0]))):
            count = counts.get(work, 0)
            more = min(left - count, room)
            if more and (count or len(counts) < rows):
                counts[work] = count + more
                room -= more
        order = [first, *(work for work, _ in wants if work is not first)]
        return [(work, counts[work]) for work in order if work in counts]


def _left(work: Work) -> int:
    """Tokens until it is fed: what was lost is computed again before a decode goes on."""
    return work.wanted() if work.prefilling else work.missing + work.wanted()


def _place(work: Work) -> tuple[int, int]:
    return work.arrival, work.sequence


def _beside(places: int) -> int:
    """So many of them may decodes have while inputs wait: a quarter is theirs."""
    return places - max(1, places // 4) if places > 1 else 1


def _in_turn(decodes: list[Work], places: int) -> list[Work]:
    """A quarter of the places goes to those whose last turn is longest ago. The others by priority, and at the same
    priority so that every user has as many as another, as long as he has any; a user's own in turn."""
    decodes.sort(key=_BY_TURN)
    oldest = -(-places // 4)
    seen: Counter[str] = Counter()
    ranked: list[tuple[int, int, int, Work]] = []
    for work in decodes[oldest:]:
        ranked.append((-work.priority, seen[work.owner], len(ranked), work))
        seen[work.owner] += 1
    ranked.sort()
    return decodes[:oldest] + [work for *_, work in ranked[: places - oldest]]


def _apart(decodes: list[Work]) -> tuple[list[Share], list[Work]]:
    return ([(work, 1) for work in decodes if work.breadth is PLAIN],
            [work for work in decodes if work.breadth is not PLAIN])


def _rotated(broad: list[Work], fed: list[Share]) -> list[Share]:
    """Of what does not fit into one step side by side, those are in it whose last turn is longest ago: so the first
    input stands among the broad decodes."""
    shares = [*fed[:1], *((work, 1) for work in broad)]
    shares.sort(key=lambda share: share[0].turn)
    return shares + fed[1:]


def _urgency(line: Line, rank: int, now: float) -> tuple[float, float, float, float]:
    """Of the work that stands so far back in its line. The first of a line that was passed over goes before all, then
    it is by priority; then the first of every line before the second of any; then who was served least."""
    if rank == 0 and now - line.served_at >= AGING_SECONDS:
        return 0, line.served_at, 0, 0
    return 1, -line.priority, rank, line.account.served


def _gate(wants: list[Share], now: float) -> tuple[list[Share], list[Share]]:
    """Those who are to be let in, in order. Apart, from the first on that was turned away, those who may only knock:
    nobody overtakes him."""
    if len(wants) > 1:
        wants.sort(key=lambda want: _place(want[0]))
        ranks: Counter[Line] = Counter()
        order: list[tuple[tuple[float, ...], int, Share]] = []
        for want in wants:
            line = want[0].line
            order.append((_urgency(line, ranks[line], now), len(order), want))
            ranks[line] += 1
        order.sort()
        wants = [want for *_, want in order]
    for number, (work, _) in enumerate(wants):
        if work.turned_away:
            return wants[:number], wants[number : number + KNOCKS]
    return wants, []
