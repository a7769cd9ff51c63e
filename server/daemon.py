"""The daemon: the services around a kernel, from the first connection to the last process's end."""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import TYPE_CHECKING

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from cadenza.kernel.limits import TERMINATE_SECONDS
from cadenza.kvfs.errors import Invalid
from cadenza.sdk.proto.cadenza.v1 import adapters_pb2, files_pb2, images_pb2, processes_pb2, system_pb2
from cadenza.sdk.proto.cadenza.v1.adapters_pb2_grpc import add_AdapterServiceServicer_to_server
from cadenza.sdk.proto.cadenza.v1.files_pb2_grpc import add_FileServiceServicer_to_server
from cadenza.sdk.proto.cadenza.v1.images_pb2_grpc import add_ImageServiceServicer_to_server
from cadenza.sdk.proto.cadenza.v1.processes_pb2_grpc import add_ProcessServiceServicer_to_server
from cadenza.sdk.proto.cadenza.v1.system_pb2_grpc import add_SystemServiceServicer_to_server
from cadenza.server.adapters import AdapterService
from cadenza.server.address import check_listening, credentials
from cadenza.server.auth import Keys
from cadenza.server.boundary import Boundary
from cadenza.server.files import FileService
from cadenza.server.images import ImageService
from cadenza.server.lifetimes import Lifetimes
from cadenza.server.limits import BOUND_SECONDS, RPC_MESSAGE_BYTES, STOP_SECONDS
from cadenza.server.metrics import CallMetrics, MetricsServer
from cadenza.server.options import ListenOptions
from cadenza.server.processes import ProcessService
from cadenza.server.system import SystemService

if TYPE_CHECKING:
    from cadenza.kernel.kernel import Kernel

SERVICES = tuple(
    service.full_name
    for module in (adapters_pb2, files_pb2, images_pb2, processes_pb2, system_pb2)
    for service in module.DESCRIPTOR.services_by_name.values()
)
_HEALTH = health_pb2.HealthCheckResponse
STOPPING_SECONDS = TERMINATE_SECONDS + 2 * STOP_SECONDS
CHANNEL_OPTIONS = (
    ("grpc.so_reuseport", 0),               # a second daemon on the same port must fail, not share it
    ("grpc.max_receive_message_length", RPC_MESSAGE_BYTES),
    ("grpc.max_concurrent_streams", 20_000),
)


class Daemon:
    """`async with Daemon(kernel, options):` serves until the block ends, then stops, and the kernel with it."""

    def __init__(self, kernel: Kernel, options: ListenOptions, *, bound_seconds: float = BOUND_SECONDS) -> None:
        """Raises Invalid if the options are unsafe (see address.py) or the keys file is malformed."""
        self._asked = check_listening(options)
        self._options = options
        self._kernel = kernel
        self._metrics = CallMetrics(kernel.statistics)
        self._lifetimes = Lifetimes(kernel, bound_seconds)
        self._processes = ProcessService(kernel, self._lifetimes, kernel.limits, options.max_priority)
        self._health = health.aio.HealthServicer()
        self._boundary = Boundary(Keys(options.keys), self._metrics)
        self._saying: asyncio.Task[None] | None = None
        self._server: grpc.aio.Server | None = None
        self._scraped: MetricsServer | None = None
        self.address = ""                   # host:port, once started
        self.metrics_address = ""           # host:port, once started, if there are metrics

    async def __aenter__(self) -> Daemon:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    async def start(self) -> None:
        """Listens. Raises Invalid if a port cannot be had."""
        try:
            await self._start()
        except BaseException:
            await self.stop()
            raise

    async def _start(self) -> None:
        self._server = server = grpc.aio.server(interceptors=(self._boundary,), options=CHANNEL_OPTIONS)
        self._add_services(server)
        self.address = str(self._asked.with_port(self._listen(server)))
        if self._options.metrics_port is not None:
            self._scraped = await self._listen_for_scrapes(self._options.metrics_port)
            self.metrics_address = self._scraped.address
        await server.start()
        await self._say_health(True)
        self._kernel.watch_device(self._device_changed)

    def _device_changed(self, there: bool) -> None:
        self._saying = asyncio.ensure_future(self._say_health(there))

    async def _say_health(self, there: bool) -> None:
        """Of every service: they answer without a device too, but programs do not get on."""
        for service in ("", *SERVICES):
            await self._health.set(service, _HEALTH.SERVING if there else _HEALTH.NOT_SERVING)

    async def stop(self) -> None:
        """Takes no more calls, closes the kernel (which asks every process to end, and kills those that do not), lets
        clients hear of it, and hangs up. Idempotent."""
        server, self._server = self._server, None
        if server is None:
            return
        await self._health.enter_graceful_shutdown()
        stopped = asyncio.ensure_future(server.stop(STOPPING_SECONDS))
        self._lifetimes.close()
        await self._kernel.close()
        await server.stop(STOP_SECONDS)
        await stopped
        if self._scraped is not None:
            await self._scraped.__aexit__(None, None, None)

    def _add_services(self, server: grpc.aio.Server) -> None:
        add_AdapterServiceServicer_to_server(AdapterService(self._kernel.adapters), server)
        add_FileServiceServicer_to_server(FileService(self._kernel), server)
        add_ImageServiceServicer_to_server(ImageService(self._kernel.images), server)
        add_ProcessServiceServicer_to_server(self._processes, server)
        add_SystemServiceServicer_to_server(SystemService(self._kernel), server)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, server)
        if self._asked.loopback:
            reflection.enable_server_reflection((*SERVICES, health.SERVICE_NAME, reflection.SERVICE_NAME), server)

    def _listen(self, server: grpc.aio.Server) -> int:
        secrets = credentials(self._options)
        try:
            if secrets is None:
                return server.add_insecure_port(str(self._asked))
            return server.add_secure_port(str(self._asked), secrets)
        except RuntimeError as error:
            raise Invalid(f"cannot listen on {self._asked}: is another daemon there? ({error})", "address") from error

    async def _listen_for_scrapes(self, port: int) -> MetricsServer:
        try:
            return await MetricsServer(self._metrics.registry, port).__aenter__()
        except OSError as error:
            raise Invalid(f"cannot listen for metrics on port {port}: {error.strerror}", "metrics_port") from error
