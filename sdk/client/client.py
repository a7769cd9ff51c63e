"""The client: a connection to one server, and what can be asked of it."""

from __future__ import annotations

import asyncio
import json
import secrets
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import suppress
from types import TracebackType
from typing import Any

from cadenza.sdk.client.activity import Top
from cadenza.sdk.client.adapters import Adapters
from cadenza.sdk.client.connection import Tls, metadata_of, open_channel, repeated
from cadenza.sdk.client.errors import Invalid, NotFound, translated
from cadenza.sdk.client.files import Files
from cadenza.sdk.client.process import Process
from cadenza.sdk.client.records import Facts, Image, Limits, Snapshot
from cadenza.sdk.client.sources import Program, Source, read_program
from cadenza.sdk.client.trace import Trace
from cadenza.sdk.proto.cadenza.v1 import images_pb2, processes_pb2, system_pb2
from cadenza.sdk.proto.cadenza.v1.images_pb2_grpc import ImageServiceStub
from cadenza.sdk.proto.cadenza.v1.processes_pb2_grpc import ProcessServiceStub
from cadenza.sdk.proto.cadenza.v1.system_pb2_grpc import SystemServiceStub

DEFAULT_TARGET = "127.0.0.1:50761"
CHUNK_BYTES = 1 << 20
Progress = Callable[[int, int], None]       # bytes sent, bytes in all


class Client:
    """`async with Client() as client:`. Every method raises a ClientError when the server refuses, cannot be reached
    (Unavailable) or does not answer within `timeout` seconds (DeadlineExceeded; None: for as long as it takes).

    upload and spawn are repeated when the connection fails; a request id sees to it that they are done once."""

    def __init__(
        self,
        target: str = DEFAULT_TARGET,
        *,
        key: str | None = None,
        tls: Tls | None = None,
        timeout: float | None = None,
    ) -> None:
        """`target`: host:port. `tls`: a PEM file of authorities, or True for the system's. To be made within a running
        event loop. Raises Invalid if a key would travel in the clear to another machine."""
        self.target = target
        self.timeout = timeout
        self._channel = open_channel(target, key, tls)
        self._metadata = metadata_of(key)
        self.adapters = Adapters(self._channel, self._metadata, timeout)
        self.files = Files(self._channel, self._metadata, timeout)
        self._images = ImageServiceStub(self._channel)
        self._processes = ProcessServiceStub(self._channel)
        self._system = SystemServiceStub(self._channel)

    async def __aenter__(self) -> Client:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Hangs up; what is under way is cancelled. Idempotent."""
        await self._channel.close()

    # --- images ---

    async def upload(
        self, source: Source, *, name: str = "", kind: str = "", progress: Progress | None = None, reuse: bool = False
    ) -> Image:
        """Uploads a .py file, a zip or directory of modules, a .wasm component, or bytes of one of these. `reuse`: if
        the name stands for an image of the same bytes already, that is answered, and nothing is sent. Raises Invalid
        (a syntax error, with file and line), LimitExceeded."""
        program = await asyncio.to_thread(read_program, source, name)
        if reuse:
            with suppress(NotFound):
                known = await self.image(program.name or program.digest)
                if known.digest == program.digest:
                    return known
        request_id = secrets.token_hex(16)

        async def send() -> images_pb2.Image:
            requests = _upload_requests(program, kind, request_id, progress)
            return await self._images.Upload(requests, metadata=self._metadata, timeout=self.timeout)

        return Image.from_message(await repeated(send))

    async def image(self, reference: str) -> Image:
        """By digest, unique prefix of one (8 digits or more), or name."""
        request = images_pb2.GetImageRequest(reference=reference)
        with translated():
            message = await self._images.Get(request, metadata=self._metadata, timeout=self.timeout)
        return Image.from_message(message)

    async def images(self) -> list[Image]:
        """All of the caller's, oldest first."""
        images: list[Image] = []
        token = ""
        while True:
            request = images_pb2.ListImagesRequest(page_token=token)
            with translated():
                page = await self._images.List(request, metadata=self._metadata, timeout=self.timeout)
            images += [Image.from_message(message) for message in page.images]
            token = page.next_page_token
            if not token:
                return images

    async def delete_image(self, reference: str) -> None:
        request = images_pb2.DeleteImageRequest(reference=reference)
        with translated():
            await self._images.Delete(request, metadata=self._metadata, timeout=self.timeout)

    # --- processes ---

    async def spawn(
        self,
        image: Image | str,
        arguments: Mapping[str, Any] | None = None,
        *,
        limits: Limits | None = None,
        bound: bool = False,
        priority: int = 0,
    ) -> Process:
        """Starts an image (or what names one). `bound`: it is killed when no client has been attached to it for some
        seconds. `priority`: −10 to 10, higher goes first; the operator bounds it. Raises NotFound, Invalid,
        LimitExceeded."""
        request = processes_pb2.SpawnRequest(
            image=image.digest if isinstance(image, Image) else image,
            arguments=_json(arguments or {}),
            limits=limits.message() if limits else None,
            bound=bound,
            request_id=secrets.token_hex(16),
            priority=priority,
        )

        async def send() -> processes_pb2.Process:
            return await self._processes.Spawn(request, metadata=self._metadata, timeout=self.timeout)

        return self._process(await repeated(send))

    async def process(self, pid: int) -> Process:
        """Raises NotFound."""
        request = processes_pb2.GetProcessRequest(pid=pid)
        with translated():
            message = await self._processes.Get(request, metadata=self._metadata, timeout=self.timeout)
        return self._process(message)

    async def processes(self) -> list[Process]:
        """All of the caller's that the server remembers, by pid."""
        processes: list[Process] = []
        token = ""
        while True:
            request = processes_pb2.ListProcessesRequest(page_token=token)
            with translated():
                page = await self._processes.List(request, metadata=self._metadata, timeout=self.timeout)
            processes += [self._process(message) for message in page.processes]
            token = page.next_page_token
            if not token:
                return processes

    async def top(self, processes: int = 0) -> Top:
        """What goes on right now, with at most so many of the caller's processes; 0: the server's choice."""
        request = processes_pb2.TopRequest(processes=processes)
        with translated():
            message = await self._processes.Top(request, metadata=self._metadata, timeout=self.timeout)
        return Top.from_message(message)

    async def trace(self, pid: int) -> Trace:
        """What a process of the caller's has done and when, alive or ended and still remembered. Raises NotFound."""
        request = processes_pb2.TraceRequest(pid=pid)
        with translated():
            message = await self._processes.Trace(request, metadata=self._metadata, timeout=self.timeout)
        return Trace.from_message(message)

    # --- the system ---

    async def facts(self) -> Facts:
        with translated():
            message = await self._system.Facts(
                system_pb2.FactsRequest(), metadata=self._metadata, timeout=self.timeout
            )
        return Facts.from_message(message)

    async def statistics(self) -> dict[str, float]:
        """The kernel's counts; the unit is in the name."""
        with translated():
            message = await self._system.Statistics(
                system_pb2.StatisticsRequest(), metadata=self._metadata, timeout=self.timeout
            )
        return dict(message.values)

    def _process(self, message: processes_pb2.Process) -> Process:
        return Process(Snapshot.from_message(message), self._processes, self._metadata, self.timeout)


def _json(arguments: Mapping[str, Any]) -> str:
    try:
        return json.dumps(arguments, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise Invalid("invalid", f"arguments are not what JSON can hold: {error}", field="arguments") from error


async def _upload_requests(
    program: Program, kind: str, request_id: str, progress: Progress | None
) -> AsyncIterator[images_pb2.UploadRequest]:
    size = len(program.data)
    yield images_pb2.UploadRequest(
        header=images_pb2.UploadHeader(
            name=program.name, kind=kind, digest=program.digest, size_bytes=size, request_id=request_id
        )
    )
    for first in range(0, size, CHUNK_BYTES):
        yield images_pb2.UploadRequest(chunk=program.data[first : first + CHUNK_BYTES])
        if progress is not None:
            progress(min(first + CHUNK_BYTES, size), size)
