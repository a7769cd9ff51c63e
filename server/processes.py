"""The process service: spawn, look, signal, wait, attach, trace."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from typing import TYPE_CHECKING, Any

from cadenza.kernel.kernel import check_priority
from cadenza.kernel.limits import ProcessLimits
from cadenza.kvfs.errors import Invalid
from cadenza.sdk.proto.cadenza.v1 import processes_pb2 as pb
from cadenza.sdk.proto.cadenza.v1.processes_pb2_grpc import ProcessServiceServicer
from cadenza.server.activity import top_message
from cadenza.server.boundary import caller
from cadenza.server.events import exit_message, timestamp
from cadenza.server.feed import Feed
from cadenza.server.lifetimes import Lifetimes
from cadenza.server.listing import page
from cadenza.server.requests import Requests
from cadenza.server.spawning import arguments_of, limits_of
from cadenza.server.tracing import trace_message

if TYPE_CHECKING:
    from cadenza.kernel.kernel import Kernel
    from cadenza.kernel.process import Process

SIGNALS = ("terminate", "kill", "interrupt", "user")


class ProcessService(ProcessServiceServicer):
    """Processes of the caller. See processes.proto."""

    def __init__(self, kernel: Kernel, lifetimes: Lifetimes, limits: ProcessLimits, max_priority: int) -> None:
        """`limits`: what a process gets that asks for nothing, and the most it may ask for, as `max_priority` is."""
        self._kernel = kernel
        self._lifetimes = lifetimes
        self._limits = limits
        self._max_priority = max_priority
        self._requests: Requests[pb.Process] = Requests("spawn")

    async def Spawn(self, request: pb.SpawnRequest, context: Any) -> pb.Process:  # noqa: N802
        user = caller.get()

        async def spawn() -> pb.Process:
            return process_message(self._spawn(user, request))

        return await self._requests.once(user, request.request_id, request.SerializeToString(deterministic=True), spawn)

    async def Get(self, request: pb.GetProcessRequest, context: Any) -> pb.Process:  # noqa: N802
        return process_message(self._process(request.pid))

    async def List(self, request: pb.ListProcessesRequest, context: Any) -> pb.ListProcessesResponse:  # noqa: N802
        messages, token = page(
            self._kernel.processes(caller.get()), lambda process: [process.pid], process_message,
            request.page_size, request.page_token,
        )  # fmt: skip
        return pb.ListProcessesResponse(processes=messages, next_page_token=token)

    async def Signal(self, request: pb.SignalRequest, context: Any) -> pb.SignalResponse:  # noqa: N802
        if request.signal not in SIGNALS:
            raise Invalid(f"signal {request.signal!r} must be one of {', '.join(SIGNALS)}", "signal")
        self._kernel.signal(caller.get(), request.pid, request.signal)
        return pb.SignalResponse()

    async def Forget(self, request: pb.ForgetRequest, context: Any) -> pb.ForgetResponse:  # noqa: N802
        self._kernel.forget(caller.get(), request.pid)
        return pb.ForgetResponse()

    async def Wait(self, request: pb.WaitRequest, context: Any) -> pb.ExitStatus:  # noqa: N802
        return exit_message(await self._process(request.pid).ended())

    async def Attach(self, request: Any, context: Any) -> AsyncGenerator[pb.Events, None]:  # noqa: N802
        start = await _start(request)
        process = self._process(start.pid)
        with self._lifetimes.attached(process.owner, process.pid):
            async with Feed(process, start.after) as feed:
                feed.deliver(request)
                async for events in feed.batches(follow=True):
                    yield events

    async def Top(self, request: pb.TopRequest, context: Any) -> pb.TopResponse:  # noqa: N802
        return await top_message(self._kernel, caller.get(), request.processes)

    async def Logs(self, request: pb.LogsRequest, context: Any) -> AsyncGenerator[pb.Events, None]:  # noqa: N802
        async with Feed(self._process(request.pid), request.after) as feed:
            async for events in feed.batches(follow=request.follow):
                yield events

    async def Trace(self, request: pb.TraceRequest, context: Any) -> pb.TraceResponse:  # noqa: N802
        process = self._process(request.pid)
        return await trace_message(process, process_message(process))

    def _process(self, pid: int) -> Process:
        return self._kernel.process(caller.get(), pid)

    def _spawn(self, user: str, request: pb.SpawnRequest) -> Process:
        arguments = arguments_of(request.arguments)
        limits = limits_of(request.limits, self._limits)
        check_priority(request.priority, self._max_priority)
        process = self._kernel.spawn(user, request.image, arguments, detached=not request.bound, limits=limits,
                                     priority=request.priority)
        if request.bound:
            self._lifetimes.bind(user, process.pid)
        return process


def process_message(process: Process) -> pb.Process:
    """A process as it is now."""
    return pb.Process(
        pid=process.pid,
        image_digest=process.image.digest,
        image_name=process.image.name,
        arguments=process.arguments,
        state=process.state,
        started_at=timestamp(process.started_at),
        ended_at=None if process.ended_at is None else timestamp(process.ended_at),
        exit=None if process.exit is None else exit_message(process.exit),
        usage=process.usage(),
        priority=process.priority,
    )


async def _start(requests: AsyncIterator[pb.AttachRequest]) -> pb.AttachStart:
    async for request in requests:
        if request.WhichOneof("request") == "start":
            return request.start
        break
    raise Invalid("the first message of attach must be its start", "start")
