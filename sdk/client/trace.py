"""What a process has done, and when."""

from __future__ import annotations

from dataclasses import dataclass

from cadenza.sdk.client.records import Snapshot
from cadenza.sdk.proto.cadenza.v1 import processes_pb2 as pb


@dataclass(frozen=True, slots=True)
class TraceRecord:
    """Times are seconds since the spawn; `until` is None while it goes on, and for what has no end.

    `kind`, of the kernel: "pass" and "run" of the model, from when it is asked for until it ends (`text`: how); "fed":
    `count` inputs of it, from when there is room for it, and so many `reused`; "interjected": `count` tokens put into
    it; "sampled": `count` tokens that the program took; "preempted"; "wait": the program is blocked on `text`. Of the
    program: "begin", "end" and "instant", about `track`."""

    sequence: int
    kind: str
    seconds: float
    until: float | None = None
    track: str = ""
    text: str = ""
    count: int = 0
    reused: int = 0

    @classmethod
    def from_message(cls, message: pb.TraceRecord) -> TraceRecord:
        until = message.until_seconds if message.HasField("until_seconds") else None
        return cls(message.sequence, message.kind, message.seconds, until, message.track, message.text, message.count,
                   message.reused)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Trace:
    """A process, and its records by sequence; `lost` before them are no longer kept. `seconds`: since its spawn, now or
    when it ended."""

    process: Snapshot
    seconds: float
    records: tuple[TraceRecord, ...]
    lost: int

    @classmethod
    def from_message(cls, message: pb.TraceResponse) -> Trace:
        records = tuple(TraceRecord.from_message(record) for record in message.records)
        return cls(Snapshot.from_message(message.process), message.seconds, records, message.lost)
