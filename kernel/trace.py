"""What a process does and when: a bounded ring of records that is always kept, for people to look at.

    pass, run     asked for ─────────────────────────────────────── ended; its text says how
    fed                          admitted ──── inputs computed
    interjected                                                  put in ── computed
    sampled                                              first ─── last      tokens taken in one go are one record
    preempted                                                 │              it makes room for others
    wait          the program is blocked, on nothing that the device does ─── it goes on
    begin, end, instant          │                                           marks of the program itself

Times are the event loop's. Nothing is recorded by the token but while a program takes them, and those that it takes
one after the other go into one record. When the ring is full the oldest record goes, and is counted.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from cadenza.kernel.limits import TRACE_GAP_SECONDS, TRACE_RECORDS, TRACE_TEXT_BYTES, TRACE_TRACK_BYTES


@dataclass(slots=True)
class TraceRecord:
    """`kind`: see above. `until`: None while it goes on, and of what has no end. `track`: which pass or run, or what
    the program's mark is about. `count`: tokens fed, put in, or sampled; `reused`: inputs that needed not be fed."""

    sequence: int
    kind: str
    time: float
    until: float | None = None
    track: str = ""
    text: str = ""
    count: int = 0
    reused: int = 0
    kept: bool = True                    # in the ring


class Trace:
    """Records with a sequence from 1 on, by when they began to be kept."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self.clock = clock
        self.started = clock()
        self.ended: float | None = None
        self._records: deque[TraceRecord] = deque(maxlen=TRACE_RECORDS)
        self._next = 1
        self._works = 0

    @property
    def lost(self) -> int:
        """How many records are no longer kept."""
        return self._next - 1 - len(self._records)

    def records(self) -> list[TraceRecord]:
        """Those that are kept; they change as things go on."""
        return list(self._records)

    def note(self, kind: str, time: float, until: float | None = None, track: str = "", text: str = "",
             count: int = 0, reused: int = 0) -> TraceRecord:  # fmt: skip
        record = TraceRecord(self._next, kind, time, until, track, text, count, reused)
        self._next += 1
        if len(self._records) == TRACE_RECORDS:
            self._records[0].kept = False
        self._records.append(record)
        return record

    def mark(self, kind: str, track: str, text: str) -> None:
        """The program's own: `kind` is begin, end or instant. What is too long is cut."""
        self.note(kind, self.clock(), None, cut(track, TRACE_TRACK_BYTES), cut(text, TRACE_TEXT_BYTES))

    def begin_wait(self, text: str) -> TraceRecord:
        """The program blocks. One that did so for the same just before, and has done nothing since, still does."""
        text, now = cut(text, TRACE_TEXT_BYTES), self.clock()
        last = self._records[-1] if self._records else None
        if last is not None and last.kind == "wait" and last.text == text and last.until is not None and (
                now - last.until <= TRACE_GAP_SECONDS):
            last.until = None
            return last
        return self.note("wait", now, text=text)

    def begin_work(self, kind: str) -> WorkTrace:
        """A pass or a run is asked for."""
        self._works += 1
        return WorkTrace(self, kind, f"{kind} {self._works}")

    def close(self) -> None:
        """The process has ended. Idempotent."""
        if self.ended is None:
            self.ended = self.clock()


class Untraced:
    """Work of nobody's: nothing of it is kept."""

    __slots__ = ()

    def admitted(self, now: float, count: int, reused: int) -> None:
        """There is room for it: `count` inputs are fed from now on, if any are left."""

    def fed(self) -> None:
        """All inputs are computed: the first token is there."""

    def interjected(self, count: int) -> None:
        """The program has put so many tokens into it: they are fed from now on."""

    def took(self, count: int) -> None:
        """The program takes so many tokens that were sampled."""

    def preempted(self) -> None:
        """It makes room for others."""

    def ended(self, how: str, sampled: int = 0) -> None:
        """`how`: a case of WIT's `finish`, an errno, or "" for a pass that is done; it has `sampled` so many then."""


UNTRACED = Untraced()


class WorkTrace(Untraced):
    """The records of one pass or run."""

    __slots__ = ("_fed", "_group", "_last", "_trace", "_whole", "track")

    def __init__(self, trace: Trace, kind: str, track: str) -> None:
        self.track = track
        self._trace = trace
        self._whole = trace.note(kind, trace.clock(), track=track)
        self._fed: TraceRecord | None = None
        self._group: TraceRecord | None = None         # the tokens taken last
        self._last = 0.0                               # when the last token was taken, or the first one came

    def admitted(self, now: float, count: int, reused: int) -> None:
        self._fed = self._trace.note("fed", now, None, self.track, "", count, reused) if count else None

    def fed(self) -> None:
        self._last = self._trace.clock()
        self._group = None
        self._end_feeding(self._last)

    def interjected(self, count: int) -> None:
        self._fed = self._trace.note("interjected", self._trace.clock(), None, self.track, "", count)

    def took(self, count: int) -> None:
        """`count` > 1 came one by one since the last were taken."""
        now = self._trace.clock() if self._whole.until is None else self._whole.until
        group, each = self._group, (now - self._last) / count
        if group is not None and each <= TRACE_GAP_SECONDS and group.kept:
            group.until = now
            group.count += count
        else:
            first = now if count == 1 else self._last if group is None else self._last + each
            self._group = self._trace.note("sampled", first, now, self.track, "", count)
        self._last = now

    def preempted(self) -> None:
        now = self._trace.clock()
        self._end_feeding(now)
        self._group = None
        self._trace.note("preempted", now, track=self.track)

    def ended(self, how: str, sampled: int = 0) -> None:
        if self._whole.until is not None:
            return
        now = self._trace.clock()
        self._end_feeding(now)
        if sampled:
            self._trace.note("sampled", now, now, self.track, "", sampled)
        self._whole.until, self._whole.text = now, how

    def _end_feeding(self, now: float) -> None:
        if self._fed is not None:
            self._fed.until, self._fed = now, None


def cut(text: str, most_bytes: int) -> str:
    """At most so many bytes of UTF-8; one that is cut ends with an ellipsis."""
    head = text[: most_bytes + 1].encode(errors="replace")
    if len(head) <= most_bytes:
        return text
    return head[: most_bytes - len("…".encode())].decode(errors="ignore") + "…"
