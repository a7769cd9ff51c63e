"""What a process has done, as a message of the wire."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cadenza.sdk.proto.cadenza.v1 import processes_pb2 as pb
from cadenza.server.activity import paced

if TYPE_CHECKING:
    from cadenza.kernel.process import Process
    from cadenza.kernel.trace import TraceRecord


async def trace_message(process: Process, known: pb.Process) -> pb.TraceResponse:
    """`known`: the process itself. It is put together in short slices, however many records are kept."""
    trace = process.trace
    lost, ended = trace.lost, trace.clock() if trace.ended is None else trace.ended
    records = [_record_message(record, trace.started) async for record in paced(trace.records())]
    return pb.TraceResponse(process=known, seconds=ended - trace.started, records=records, lost=lost)


def _record_message(record: TraceRecord, started: float) -> pb.TraceRecord:
    return pb.TraceRecord(
        sequence=record.sequence, kind=record.kind, seconds=record.time - started,
        until_seconds=None if record.until is None else record.until - started, track=record.track, text=record.text,
        count=record.count, reused=record.reused,
    )  # fmt: skip
