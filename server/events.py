"""What a process says, and how it ended, as messages of the wire."""

from __future__ import annotations

from typing import TYPE_CHECKING

from google.protobuf import timestamp_pb2

from cadenza.sdk.proto.cadenza.v1 import processes_pb2 as pb

if TYPE_CHECKING:
    from cadenza.kernel.output import OutputEvent
    from cadenza.kernel.process import ExitStatus


def output_message(event: OutputEvent) -> pb.Output:
    text = event.text.encode(errors="replace").decode()  # the wire holds no lone surrogates
    return pb.Output(sequence=event.sequence, time=timestamp(event.time), kind=event.kind, text=text)


def exit_message(status: ExitStatus) -> pb.ExitStatus:
    return pb.ExitStatus(ending=status.ending, code=status.code, message=status.message)


def timestamp(unix_seconds: float) -> timestamp_pb2.Timestamp:
    stamp = timestamp_pb2.Timestamp()
    stamp.FromNanoseconds(int(unix_seconds * 1e9))
    return stamp
