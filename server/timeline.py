"""A trace as lanes beside each other: what the model does, then the program's marks, then what it waits for.

    model     ····▒▒▒▒▒▒████████████      ▒████████        a pass or a run: queued, inputs, tokens
    7             ━━━━━━━━━━━━━━━━━━━━━━━━━                 a track: begin to end, and what happens
    waits                         ────────                  blocked, and nothing is done by the device

What overlaps never shares a lane, until there are more lanes than one can look at.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cadenza.sdk.client import Trace, TraceRecord

MODEL_LANES = 8                             # for passes and runs that overlap; more share the last
TRACK_LANES = 40                            # for marks; more tracks go where there is room
LEAST_QUEUE_SECONDS = 0.002                 # who waits shorter for room has not been queued
TRAP = "trap"                               # the track of traps
SHADES = ("queued", "prefill", "tokens", "call", "trap", "wait")


@dataclass(frozen=True, slots=True)
class Bar:
    """Something that lasts. `shade`: one of SHADES; `open`: it had not ended."""

    start: float
    end: float
    shade: str
    text: str
    open: bool = False


@dataclass(frozen=True, slots=True)
class Tick:
    """Something that happens. `shade`: "mark" or "preempted"."""

    at: float
    shade: str
    text: str


@dataclass(slots=True)
class Lane:
    """Bars by their start, not overlapping but for those of a full picture."""

    name: str
    bars: list[Bar] = field(default_factory=list)
    ticks: list[Tick] = field(default_factory=list)

    def things(self) -> list[Bar | Tick]:
        return [*self.bars, *self.ticks]


@dataclass(frozen=True, slots=True)
class Timeline:
    """`start`, `end`: seconds since the spawn; what was before `start` is lost."""

    title: str
    start: float
    end: float
    lanes: list[Lane]
    lost: int

    def shades(self) -> set[str]:
        """Of all that is there."""
        return {thing.shade for lane in self.lanes for thing in lane.things()}


@dataclass(slots=True)
class _Group:
    """Bars and ticks that keep together: one pass, or what begins and ends on a track."""

    start: float
    end: float
    bars: list[Bar]
    ticks: list[Tick] = field(default_factory=list)


def timeline_of(trace: Trace) -> Timeline:
    """Records whose beginnings are lost begin with the first that is known."""
    start = min((record.seconds for record in trace.records), default=0.0) if trace.lost else 0.0
    end = max([trace.seconds, start, *(r.until or r.seconds for r in trace.records)])
    lanes = [*_model_lanes(trace.records, end), *_track_lanes(trace.records, start, end),
             *_wait_lanes(trace.records, end)]
    tokens = sum(record.count for record in trace.records if record.kind == "sampled")
    return Timeline(title(trace, tokens), start, end, lanes, trace.lost)


def title(trace: Trace, tokens: int) -> str:
    known = trace.process
    state = f"{known.exit.ending} ({known.exit.code})" if known.exit else known.state
    return (f"process {known.pid}, {known.image_name or known.image_digest[:12]}: {state}, {span(trace.seconds)}, "
            f"{tokens:,} tokens")


def span(seconds: float) -> str:
    """A time for people, to three digits."""
    if seconds < 1.0:
        return f"{seconds * 1e3:.3g} ms"
    return f"{seconds:.3g} s" if seconds < 1000 else f"{seconds:,.0f} s"


# --- the model ---

def _model_lanes(records: Iterable[TraceRecord], end: float) -> list[Lane]:
    works: dict[str, list[TraceRecord]] = defaultdict(list)
    for record in records:
        if record.kind in ("pass", "run", "fed", "interjected", "sampled", "preempted"):
            works[record.track].append(record)
    groups = sorted((_work(of_one, end) for of_one in works.values()), key=lambda group: group.start)
    lanes: list[Lane] = []
    ends: list[float] = []
    for group in groups:
        at = _free(ends, group.start, MODEL_LANES)
        if at == len(lanes):
            lanes.append(Lane("model" if at == 0 else f"model {at + 1}"))
            ends.append(0.0)
        ends[at] = group.end
        lanes[at].bars += group.bars
        lanes[at].ticks += group.ticks
    return lanes or [Lane("model")]


def _work(records: Sequence[TraceRecord], end: float) -> _Group:
    """One pass or run: what it does when, and that it is queued while it does nothing but wait for room."""
    group = _Group(min(r.seconds for r in records), max(_until(r, end) for r in records), [])
    queued = None
    for record in records:
        if record.kind in ("pass", "run"):
            queued, group.end = record.seconds, _until(record, end)
        elif record.kind == "preempted":
            queued = record.seconds
            group.ticks.append(Tick(record.seconds, "preempted", f"{record.track} makes room for others"))
        else:
            if queued is not None and record.seconds - queued >= LEAST_QUEUE_SECONDS:
                group.bars.append(_queue(record.track, queued, record.seconds))
            queued = None
            group.bars.append(_sampled(record) if record.kind == "sampled" else _fed(record, end))
            if record.kind == "interjected":
                group.ticks.append(Tick(record.seconds, "mark", f"{record.track}: {_tokens(record.count)} put in"))
    if queued is not None and group.end - queued >= LEAST_QUEUE_SECONDS:
        group.bars.append(_queue(records[0].track, queued, group.end))
    return group


def _queue(track: str, since: float, until: float) -> Bar:
    return Bar(since, until, "queued", f"{track} waits for room, {span(until - since)}")


def _fed(record: TraceRecord, end: float) -> Bar:
    until = _until(record, end)
    reused = f", {record.reused:,} reused" if record.reused else ""
    what = "inputs" if record.kind == "fed" else "tokens put in"
    text = f"{record.track}: {record.count:,} {what}{reused}, {span(until - record.seconds)}"
    return Bar(record.seconds, until, "prefill", text, record.until is None)


def _sampled(record: TraceRecord) -> Bar:
    until = record.until if record.until is not None else record.seconds
    took = until - record.seconds
    pace = f", {span(took)}, {(record.count - 1) / took:,.3g} a second" if record.count > 1 and took > 0 else ""
    return Bar(record.seconds, until, "tokens", f"{record.track}: {_tokens(record.count)}{pace}")


def _tokens(count: int) -> str:
    return "1 token" if count == 1 else f"{count:,} tokens"


# --- marks ---

def _track_lanes(records: Iterable[TraceRecord], start: float, end: float) -> list[Lane]:
    """One a track, and one more for what overlaps on it: calls, then traps, then what only happens."""
    lanes: list[Lane] = []
    ends: list[float] = []
    for track, group in sorted(_marks(records, start, end), key=lambda known: known[1].start):
        mine = [at for at, lane in enumerate(lanes) if lane.name == (track or "marks")]
        at = next((at for at in mine if not group.bars or ends[at] <= group.start), len(lanes))
        if at == len(lanes) >= TRACK_LANES:
            at = _free(ends, group.start, TRACK_LANES)
            lanes[at].name = "…"
        if at == len(lanes):
            lanes.append(Lane(track or "marks"))
            ends.append(0.0)
        ends[at] = max(ends[at], group.end)
        lanes[at].bars += group.bars
        lanes[at].ticks += group.ticks
    return sorted(lanes, key=lambda lane: 2 if not lane.bars else lane.name == TRAP)


def _marks(records: Iterable[TraceRecord], start: float, end: float) -> Iterator[tuple[str, _Group]]:
    """An end is that of what began last on its track."""
    begun: dict[str, list[TraceRecord]] = defaultdict(list)
    for record in records:
        if record.kind == "begin":
            begun[record.track].append(record)
        elif record.kind == "end":
            first = begun[record.track].pop() if begun[record.track] else None
            yield record.track, _call(record.track, first, start, record.seconds, record.text)
        elif record.kind == "instant":
            tick = Tick(record.seconds, "mark", record.text)
            yield record.track, _Group(record.seconds, record.seconds, [], [tick])
    for track, unended in begun.items():
        for first in unended:
            yield track, _call(track, first, start, end, "", open_=True)


def _call(track: str, first: TraceRecord | None, start: float, until: float, result: str, *,
          open_: bool = False) -> _Group:
    since, said = (first.seconds, first.text) if first is not None else (start, "")
    text = " → ".join(filter(None, (said, result))) or track
    bar = Bar(since, until, "trap" if track == TRAP else "call", text, open_)
    return _Group(since, until, [bar])


# --- waits ---

def _wait_lanes(records: Iterable[TraceRecord], end: float) -> list[Lane]:
    bars = [Bar(r.seconds, _until(r, end), "wait", r.text or "nothing", r.until is None)
            for r in records if r.kind == "wait"]
    return [Lane("waits", bars)] if bars else []


def _until(record: TraceRecord, end: float) -> float:
    """Of an instant, its own time."""
    if record.until is not None:
        return record.until
    return record.seconds if record.kind == "preempted" else end


def _free(ends: Sequence[float], start: float, most: int) -> int:
    """The first lane that is free then, a new one if there may be one, else the one that is free soonest."""
    at = next((at for at, ended in enumerate(ends) if ended <= start), len(ends))
    return at if at < most else min(range(len(ends)), key=ends.__getitem__)
