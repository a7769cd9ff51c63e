"""LoRA adapters of the caller: what programs can name where they ask the model."""

from __future__ import annotations

import asyncio
import hashlib
import os
import secrets
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import grpc

from cadenza.sdk.client.connection import repeated
from cadenza.sdk.client.errors import Invalid, translated
from cadenza.sdk.client.records import datetime_of
from cadenza.sdk.proto.cadenza.v1 import adapters_pb2 as pb
from cadenza.sdk.proto.cadenza.v1.adapters_pb2_grpc import AdapterServiceStub

CONFIG, WEIGHTS, PICKLED = "adapter_config.json", "adapter_model.safetensors", "adapter_model.bin"
CHUNK_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Adapter:
    """`digest`: of its settings and weights; `targets`: the kinds of linear maps that it adds to, as "q_proj"."""

    name: str
    digest: str
    rank: int
    targets: tuple[str, ...]
    size_bytes: int
    created_at: datetime

    @classmethod
    def from_message(cls, message: pb.Adapter) -> Adapter:
        return cls(message.name, message.digest, message.rank, tuple(message.targets), message.size_bytes,
                   datetime_of(message.created_at))


class Adapters:
    """Made by `Client.adapters`. Raises ClientErrors as the client does."""

    def __init__(self, channel: grpc.aio.Channel, metadata: Any, timeout: float | None) -> None:
        self._stub = AdapterServiceStub(channel)
        self._options: dict[str, Any] = {"metadata": metadata, "timeout": timeout}

    async def add(
        self, name: str, directory: str | os.PathLike[str], *, progress: Callable[[int, int], None] | None = None
    ) -> Adapter:
        """Uploads what `peft` saved in `directory`. `progress`: bytes sent, bytes in all. Raises Exists, Invalid,
        LimitExceeded, Unsupported with what is not served."""
        settings, weights = await asyncio.to_thread(_read, Path(directory))
        header = pb.AddAdapterHeader(name=name, settings=settings, digest=hashlib.sha256(weights).hexdigest(),
                                     size_bytes=len(weights), request_id=secrets.token_hex(16))

        async def send() -> pb.Adapter:
            return await self._stub.Add(_requests(header, weights, progress), **self._options)

        return Adapter.from_message(await repeated(send))

    async def list(self) -> list[Adapter]:
        """By name."""
        with translated():
            answer = await self._stub.List(pb.ListAdaptersRequest(), **self._options)
        return [Adapter.from_message(message) for message in answer.adapters]

    async def drop(self, name: str) -> None:
        """Raises NotFound, or Busy while something under way, or a KV file, was computed under it."""
        with translated():
            await self._stub.Drop(pb.DropAdapterRequest(name=name), **self._options)


def _read(directory: Path) -> tuple[bytes, bytes]:
    """Blocks. Raises Invalid; pickled weights are never read."""
    try:
        return (directory / CONFIG).read_bytes(), (directory / WEIGHTS).read_bytes()
    except OSError as error:
        pickled = " (pickled weights are not read: save it with safetensors)" if (directory / PICKLED).exists() else ""
        raise Invalid("invalid", f"{directory} is no adapter as peft saves it: cannot read {error.filename}: "
                      f"{error.strerror}{pickled}", field="directory") from error


async def _requests(
    header: pb.AddAdapterHeader, weights: bytes, progress: Callable[[int, int], None] | None
) -> AsyncIterator[pb.AddAdapterRequest]:
    yield pb.AddAdapterRequest(header=header)
    for first in range(0, len(weights), CHUNK_BYTES):
        yield pb.AddAdapterRequest(chunk=weights[first : first + CHUNK_BYTES])
        if progress is not None:
            progress(min(first + CHUNK_BYTES, len(weights)), len(weights))
