"""A process on the server, as a client holds it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import datetime
from typing import TYPE_CHECKING

from cadenza.sdk.client.attachment import Attachment
from cadenza.sdk.client.connection import Metadata
from cadenza.sdk.client.errors import translated
from cadenza.sdk.client.records import Event, ExitStatus, Snapshot, event_from_message
from cadenza.sdk.proto.cadenza.v1 import processes_pb2 as pb

if TYPE_CHECKING:
    from cadenza.sdk.proto.cadenza.v1.processes_pb2_grpc import ProcessServiceAsyncStub


class Process:
    """Made by `Client.spawn`, `Client.process` and `Client.processes`. `snapshot` is what was known when the server
    last answered; `refresh` asks again."""

    def __init__(
        self, snapshot: Snapshot, stub: ProcessServiceAsyncStub, metadata: Metadata, timeout: float | None
    ) -> None:
        self.snapshot = snapshot
        self._stub = stub
        self._metadata = metadata
        self._timeout = timeout

    def __repr__(self) -> str:
        return f"<Process {self.pid} of {self.snapshot.image_name or self.snapshot.image_digest[:12]}, {self.state}>"

    @property
    def pid(self) -> int:
        return self.snapshot.pid

    @property
    def state(self) -> str:
        return self.snapshot.state

    @property
    def started_at(self) -> datetime:
        return self.snapshot.started_at

    @property
    def exit(self) -> ExitStatus | None:
        return self.snapshot.exit

    async def refresh(self) -> Process:
        """Asks the server how it is now; answers itself."""
        with translated():
            message = await self._stub.Get(
                pb.GetProcessRequest(pid=self.pid), metadata=self._metadata, timeout=self._timeout
            )
        self.snapshot = Snapshot.from_message(message)
        return self

    def attach(self, after: int = 0) -> Attachment:
        """Its events above sequence `after`, up to its exit, and a way to send it messages. `async for` it, or use it
        as an async context manager, which detaches at its end."""
        return Attachment(self._stub, self._metadata, self.pid, after)

    async def logs(self, *, after: int = 0, follow: bool = False) -> AsyncIterator[Event]:
        """The events that are kept, above sequence `after`; with `follow` also those to come. The last one is the
        ExitStatus of a process that has ended."""
        request = pb.LogsRequest(pid=self.pid, after=after, follow=follow)
        call = self._stub.Logs(request, metadata=self._metadata)
        try:
            with translated():
                async for batch in call:
                    for message in batch.events:
                        yield event_from_message(message)
        finally:
            call.cancel()

    async def wait(self, timeout: float | None = None) -> ExitStatus:  # gRPC's deadline
        """How it ended, when it has. Raises DeadlineExceeded after `timeout` seconds; it goes on then."""
        with translated():
            message = await self._stub.Wait(pb.WaitRequest(pid=self.pid), metadata=self._metadata, timeout=timeout)
        return ExitStatus.from_message(message)

    async def signal(self, signal: str) -> None:
        """"terminate", "kill", "interrupt" or "user". Raises Closed if it has ended."""
        request = pb.SignalRequest(pid=self.pid, signal=signal)
        with translated():
            await self._stub.Signal(request, metadata=self._metadata, timeout=self._timeout)

    async def forget(self) -> None:
        """Drops it, its output and its exit status from the server. Raises Invalid while it lives."""
        with translated():
            await self._stub.Forget(
                pb.ForgetRequest(pid=self.pid), metadata=self._metadata, timeout=self._timeout
            )

    async def kill(self) -> None:
        """Ends it at once, whatever it does."""
        await self.signal("kill")
