"""The adapter service: LoRA adapters, uploaded as `peft` saves them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from google.protobuf import timestamp_pb2

from cadenza.kernel.limits import ADAPTER_BYTES
from cadenza.kvfs.errors import LimitExceeded
from cadenza.sdk.proto.cadenza.v1 import adapters_pb2 as pb
from cadenza.sdk.proto.cadenza.v1.adapters_pb2_grpc import AdapterServiceServicer
from cadenza.server.boundary import caller
from cadenza.server.requests import Requests
from cadenza.server.uploads import Uploads, uploaded_data, uploaded_header

if TYPE_CHECKING:
    from cadenza.kernel.adapters import Adapter, Adapters


class AdapterService(AdapterServiceServicer):
    """Adapters of the caller. See adapters.proto."""

    def __init__(self, adapters: Adapters) -> None:
        self._adapters = adapters
        self._requests: Requests[pb.Adapter] = Requests("upload")
        self._uploads = Uploads()

    async def Add(self, request: Any, context: Any) -> pb.Adapter:  # noqa: N802
        user = caller.get()
        with self._uploads.of(user):
            header: pb.AddAdapterHeader = await uploaded_header(request)
            if header.size_bytes > ADAPTER_BYTES:
                raise LimitExceeded(f"the adapter has {header.size_bytes} bytes, the limit is {ADAPTER_BYTES}; train "
                                    "one of a lower rank", "adapter_bytes")
            data = await uploaded_data(request, header)

            async def add() -> pb.Adapter:
                return adapter_message(await self._adapters.add(user, header.name, header.settings, data))

            return await self._requests.once(user, header.request_id, header.SerializeToString(deterministic=True), add)

    async def List(self, request: pb.ListAdaptersRequest, context: Any) -> pb.ListAdaptersResponse:  # noqa: N802
        return pb.ListAdaptersResponse(adapters=map(adapter_message, self._adapters.list(caller.get())))

    async def Drop(self, request: pb.DropAdapterRequest, context: Any) -> pb.DropAdapterResponse:  # noqa: N802
        self._adapters.drop(caller.get(), request.name)
        return pb.DropAdapterResponse()


def adapter_message(adapter: Adapter) -> pb.Adapter:
    created_at = timestamp_pb2.Timestamp()
    created_at.FromNanoseconds(int(adapter.created_at * 1e9))
    return pb.Adapter(name=adapter.name, digest=adapter.digest, rank=adapter.rank, targets=adapter.targets,
                      size_bytes=adapter.size_bytes, created_at=created_at)
