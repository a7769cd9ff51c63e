"""The system service: which model runs on which device, and the kernel's counts."""

from __future__ import annotations

import time
from importlib import metadata
from typing import TYPE_CHECKING, Any

from cadenza.sdk.proto.cadenza.v1 import system_pb2 as pb
from cadenza.sdk.proto.cadenza.v1.system_pb2_grpc import SystemServiceServicer
from cadenza.server.boundary import caller
from cadenza.server.events import timestamp

if TYPE_CHECKING:
    from cadenza.kernel.kernel import Kernel


class SystemService(SystemServiceServicer):
    """The same for every caller. See system.proto."""

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel
        self._started_at = timestamp(time.time())

    async def Facts(self, request: pb.FactsRequest, context: Any) -> pb.FactsResponse:  # noqa: N802
        facts = self._kernel.facts
        return pb.FactsResponse(
            version=version(),
            started_at=self._started_at,
            user=caller.get(),
            model=facts.model,
            fingerprint=facts.fingerprint,
            device=facts.device,
            pages=facts.pages,
            page_tokens=facts.page_tokens,
            kv_tokens=facts.kv_tokens,
            context_tokens=facts.context_tokens,
        )

    async def Statistics(self, request: pb.StatisticsRequest, context: Any) -> pb.StatisticsResponse:  # noqa: N802
        return pb.StatisticsResponse(values=self._kernel.statistics())


def version() -> str:
    """Of the installed distribution; "0" in a tree that is not installed."""
    try:
        return metadata.version("cadenza")
    except metadata.PackageNotFoundError:
        return "0"
