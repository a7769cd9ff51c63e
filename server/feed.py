"""What one client is told of one process: its output, receipts for the client's messages, its exit; in batches.

A send costs the kernel's thread as much as many events do. So the first event goes at once, and those that come within
GATHER_SECONDS of a send go together in the next: a program that floods its output cannot keep the thread busy.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from types import TracebackType
from typing import TYPE_CHECKING, Any

from cadenza.kernel.limits import MESSAGE_BYTES
from cadenza.kvfs.errors import CadenzaError, Invalid, LimitExceeded
from cadenza.sdk.proto.cadenza.v1 import processes_pb2 as pb
from cadenza.server.events import exit_message, output_message
from cadenza.server.limits import BATCH_CHARACTERS, GATHER_SECONDS, RECEIPTS

if TYPE_CHECKING:
    from cadenza.kernel.process import Process


class Feed:
    """An async context manager: its end stops the delivery of messages."""

    def __init__(self, process: Process, after: int) -> None:
        self._process = process
        self._after = after                 # the last sequence that is in a batch, or lost
        self._receipts: asyncio.Queue[pb.Receipt] = asyncio.Queue(RECEIPTS)
        self._received = asyncio.Event()    # a receipt is there
        self._delivery: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Feed:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._delivery is not None:
            self._delivery.cancel()
            await asyncio.gather(self._delivery, return_exceptions=True)

    def deliver(self, requests: AsyncIterator[pb.AttachRequest]) -> None:
        """From now on the client's messages go to the process. What is no message ends `batches` with Invalid."""
        self._delivery = asyncio.ensure_future(self._deliver(requests))

    async def batches(self, *, follow: bool) -> AsyncGenerator[pb.Events, None]:
        """Up to the exit of the process, or, unless it is to follow, up to what there is."""
        loop = asyncio.get_running_loop()
        while True:
            status = self._process.exit  # before the output is read: all that was said before it is sent before it
            for batch in self._batches():
                yield batch
            if status is not None:
                yield pb.Events(events=[pb.Event(exit=exit_message(status))])
            if status is not None or not follow:
                return
            sent_at = loop.time()
            await self._news()
            if self._process.exit is None:
                await asyncio.sleep(sent_at + GATHER_SECONDS - loop.time())

    def _batches(self) -> Iterator[pb.Events]:
        """All that there is, now."""
        batch, characters = pb.Events(), 0
        for event in self._events():
            batch.events.append(event)
            characters += len(event.output.text)
            if characters >= BATCH_CHARACTERS:
                yield batch
                batch, characters = pb.Events(), 0
        if batch.events:
            yield batch

    def _events(self) -> Iterator[pb.Event]:
        self._received.clear()
        while not self._receipts.empty():
            yield pb.Event(receipt=self._receipts.get_nowait())
        events, lost = self._process.output.read(self._after)
        if lost:
            self._after += lost
            yield pb.Event(lost=pb.Lost(events=lost))
        for event in events:
            self._after = event.sequence
            yield pb.Event(output=output_message(event))

    async def _news(self) -> None:
        """Returns when there is something to send, or the process has ended. Raises what the delivery ended with."""
        changed = asyncio.ensure_future(self._changed())
        received = asyncio.ensure_future(self._received.wait())
        waits: set[asyncio.Future[Any]] = {changed, received}
        if self._delivery is not None and not self._delivery.done():
            waits.add(self._delivery)
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            changed.cancel()
            received.cancel()
        if self._delivery is not None and self._delivery.done():
            self._delivery.result()

    async def _changed(self) -> None:
        """Output, or the end: a log is closed a moment before or after the process has its exit status."""
        output = self._process.output
        await output.changed(self._after)
        if not output.read(self._after)[0]:
            await self._process.ended()

    async def _deliver(self, requests: AsyncIterator[pb.AttachRequest]) -> None:
        async for request in requests:
            if request.WhichOneof("request") != "message":
                raise Invalid("after its start attach must hold messages only", "message")
            await self._receipts.put(self._delivered(request.message))
            self._received.set()

    def _delivered(self, message: pb.ClientMessage) -> pb.Receipt:
        size = len(message.text.encode())
        try:
            if size > MESSAGE_BYTES:
                raise LimitExceeded(
                    f"the message has {size} bytes, the limit is {MESSAGE_BYTES}; send it in parts", "message_bytes"
                )
            self._process.deliver(message.text)
        except CadenzaError as error:
            return pb.Receipt(number=message.number, errno=error.errno, message=error.message)
        return pb.Receipt(number=message.number)
