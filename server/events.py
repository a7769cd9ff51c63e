"""What a process says, as events of the wire: followed, or what there is; and two streams of them made one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import TYPE_CHECKING

from google.protobuf import timestamp_pb2

from cadenza.sdk.proto.cadenza.v1 import processes_pb2 as pb

if TYPE_CHECKING:
    from cadenza.kernel.output import OutputEvent
    from cadenza.kernel.process import ExitStatus, Process

Events = AsyncGenerator[pb.Event, None]


async def output_events(process: Process, after: int, *, follow: bool) -> Events:
    """Output above sequence `after`, then the exit of a process that has ended. With `follow` it waits for that."""
    while True:
        exit_status = process.exit  # before reading: whatever was said before the exit is read
        events, lost = process.output.read(after)
        if lost:
            yield pb.Event(lost=pb.Lost(events=lost))
            after += lost
        for event in events:
            yield _output(event)
            after = event.sequence
        if exit_status is not None:
            yield pb.Event(exit=exit_message(exit_status))
            return
        if not follow:
            return
        await process.output.changed(after)
        if not process.output.read(after)[0] and process.exit is None:
            await process.ended()  # the log is closed, the exit status is on its way


async def merged(*sources: Events) -> Events:
    """The events of all sources as they come, until each has ended or one has yielded an exit. Closes them."""
    nexts = {asyncio.ensure_future(_next(source)): source for source in sources}
    try:
        while nexts:
            done, _ = await asyncio.wait(nexts, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                source = nexts.pop(task)
                event = task.result()
                if event is None:
                    continue
                yield event
                if event.HasField("exit"):
                    return
                nexts[asyncio.ensure_future(_next(source))] = source
    finally:
        for task in nexts:
            task.cancel()
        await asyncio.gather(*nexts, return_exceptions=True)
        for source in sources:
            await source.aclose()


def exit_message(status: ExitStatus) -> pb.ExitStatus:
    return pb.ExitStatus(ending=status.ending, code=status.code, message=status.message)


def timestamp(unix_seconds: float) -> timestamp_pb2.Timestamp:
    stamp = timestamp_pb2.Timestamp()
    stamp.FromNanoseconds(int(unix_seconds * 1e9))
    return stamp


async def _next(source: Events) -> pb.Event | None:
    return await anext(source, None)


def _output(event: OutputEvent) -> pb.Event:
    text = event.text.encode(errors="replace").decode()  # the wire holds no lone surrogates
    return pb.Event(
        output=pb.Output(sequence=event.sequence, time=timestamp(event.time), kind=event.kind, text=text)
    )
