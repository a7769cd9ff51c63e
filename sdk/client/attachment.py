"""A client attached to a process: what it says, as it comes, and messages to it."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from types import TracebackType
from typing import TYPE_CHECKING

import grpc

from cadenza.sdk.client.connection import Metadata
from cadenza.sdk.client.errors import ClientError, Closed, from_call, from_receipt
from cadenza.sdk.client.records import Event, ExitStatus, Output, event_from_message
from cadenza.sdk.proto.cadenza.v1 import processes_pb2 as pb

if TYPE_CHECKING:
    from cadenza.sdk.proto.cadenza.v1.processes_pb2_grpc import ProcessServiceAsyncStub


class Attachment:
    """An async iterator of Output, Lost, and at last the ExitStatus. Raises the ClientError that the connection ended
    with. Events wait in memory until they are taken; a process's output limit bounds them."""

    def __init__(self, stub: ProcessServiceAsyncStub, metadata: Metadata, pid: int, after: int) -> None:
        self.pid = pid
        self.after = after                  # the sequence of the last event taken: where to attach again
        self._call = stub.Attach(metadata=metadata)
        self._events: asyncio.Queue[Event | ClientError] = asyncio.Queue()
        self._receipts: dict[int, asyncio.Future[pb.Receipt]] = {}
        self._sent = 0
        self._writing = asyncio.Lock()
        self._started = False
        self._ending: Event | ClientError | None = None
        self._over = False                  # the iterator has said its last
        self._reader = asyncio.ensure_future(self._read())

    async def __aenter__(self) -> Attachment:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    def __aiter__(self) -> Attachment:
        return self

    async def __anext__(self) -> Event:
        if self._over:
            raise StopAsyncIteration
        event = await self._events.get()
        if isinstance(event, ClientError):
            self._over = True
            raise event
        if isinstance(event, Output):
            self.after = event.sequence
        self._over = isinstance(event, ExitStatus)
        return event

    async def send(self, text: str) -> None:
        """Sends the program a message; returns when it is in its queue. Raises LimitExceeded if the queue is full or
        the message too long, Closed if the process has ended."""
        if self._ending is not None:
            raise self._closed()
        receipt: asyncio.Future[pb.Receipt] = asyncio.get_running_loop().create_future()
        self._sent += 1
        self._receipts[self._sent] = receipt
        await self._write(pb.AttachRequest(message=pb.ClientMessage(number=self._sent, text=text)))
        answer = await receipt
        if answer.errno:
            raise from_receipt(answer.errno, answer.message)

    async def close(self) -> None:
        """Detaches. A process that is bound to its client ends some seconds later. Idempotent."""
        self._call.cancel()
        await asyncio.wait([self._reader])

    async def _read(self) -> None:
        """Takes everything that comes apart: receipts to those who wait for them, events to the queue."""
        ending: Event | ClientError = Closed("closed", "detached")
        try:
            await self._write()
            async for batch in self._call:
                for message in batch.events:
                    ending = self._take(message) or ending
        except grpc.aio.AioRpcError as error:
            ending = from_call(error)
        except asyncio.CancelledError:
            pass  # `close`, or the channel is closed
        finally:
            self._ending = ending
            self._events.put_nowait(ending)
            self._abandon_receipts()

    def _take(self, message: pb.Event) -> ExitStatus | None:
        """An exit is answered, not queued: nothing may follow it."""
        if message.HasField("receipt"):
            self._settle(message.receipt)
            return None
        event = event_from_message(message)
        if isinstance(event, ExitStatus):
            return event
        self._events.put_nowait(event)
        return None

    async def _write(self, *requests: pb.AttachRequest) -> None:
        """One at a time, and the start before all. A failed write is no news: the reader learns why."""
        async with self._writing:
            if not self._started:
                self._started = True
                start = pb.AttachRequest(start=pb.AttachStart(pid=self.pid, after=self.after))
                requests = (start, *requests)
            with suppress(asyncio.InvalidStateError, grpc.aio.UsageError, grpc.aio.AioRpcError):
                for request in requests:
                    await self._call.write(request)

    def _settle(self, receipt: pb.Receipt) -> None:
        waiting = self._receipts.pop(receipt.number, None)
        if waiting is not None and not waiting.done():
            waiting.set_result(receipt)

    def _abandon_receipts(self) -> None:
        for waiting in self._receipts.values():
            if not waiting.done():
                waiting.set_exception(self._closed())
        self._receipts.clear()

    def _closed(self) -> ClientError:
        if isinstance(self._ending, ClientError):
            return self._ending
        return Closed("closed", f"process {self.pid} has ended; nobody will read the message")
