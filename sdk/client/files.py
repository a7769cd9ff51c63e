"""KV files by name: what the command line and other clients do with them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import grpc

from cadenza.sdk.client.errors import translated
from cadenza.sdk.client.records import datetime_of
from cadenza.sdk.proto.cadenza.v1 import files_pb2 as pb
from cadenza.sdk.proto.cadenza.v1.files_pb2_grpc import FileServiceStub

Rights = frozenset[str]                     # of "read", "append"


@dataclass(frozen=True, slots=True)
class FileInfo:
    """A file or, then with its path alone, a directory. `exact`: equal to a plain prefill of its tokens at its
    positions; `durable`: on disk as it is now; `foreign`: of which other model it is, if it cannot be read here."""

    path: str
    directory: bool
    paths: tuple[str, ...]
    owner: str
    mine: Rights
    others: Rights
    grants: Mapping[str, Rights]
    tokens: int
    hidden: int
    pages: int
    size_bytes: int
    exact: bool
    durable: bool
    foreign: str
    created_at: datetime
    modified_at: datetime

    @classmethod
    def from_message(cls, message: pb.File) -> FileInfo:
        grants = {user: _rights(rights) for user, rights in message.grants.items()}
        return cls(
            message.path, message.directory, tuple(message.paths), message.owner, _rights(message.mine),
            _rights(message.others), grants, message.tokens, message.hidden, message.pages, message.size_bytes,
            message.exact, message.durable, message.foreign, datetime_of(message.created_at),
            datetime_of(message.modified_at),
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Tier:
    """Where pages lie: "device", "host" or "disk"."""

    name: str
    pages: int
    used_pages: int
    page_bytes: int


@dataclass(frozen=True, slots=True)
class Usage:
    """What the caller has and may have (0 bytes: all that there is), and where everybody's pages lie."""

    files: int
    files_limit: int
    bytes: int
    bytes_limit: int
    tiers: tuple[Tier, ...]


class Files:
    """Made by `Client.files`. Relative paths begin at the caller's home. Raises ClientErrors as the client does."""

    def __init__(self, channel: grpc.aio.Channel, metadata: Any, timeout: float | None) -> None:
        self._stub = FileServiceStub(channel)
        self._options: dict[str, Any] = {"metadata": metadata, "timeout": timeout}

    async def list(self, path: str = "") -> list[FileInfo]:
        """What is in a directory, by name; "" is the caller's home. Of a file itself alone."""
        files: list[FileInfo] = []
        token: str | None = ""
        while token is not None:
            with translated():
                answer = await self._stub.List(pb.ListFilesRequest(path=path, page_token=token), **self._options)
            files += [FileInfo.from_message(message) for message in answer.files]
            token = answer.next_page_token or None
        return files

    async def get(self, path: str) -> FileInfo:
        with translated():
            return FileInfo.from_message(await self._stub.Get(pb.GetFileRequest(path=path), **self._options))

    async def read(self, path: str) -> AsyncIterator[str]:
        """Its tokens as text, in pieces."""
        with translated():
            async for piece in self._stub.Read(pb.ReadFileRequest(path=path), **self._options):
                yield piece.text

    async def copy(self, path: str, to: str) -> FileInfo:
        """A file of the caller's with the same contents; nothing is copied until one of the two changes."""
        with translated():
            return FileInfo.from_message(await self._stub.Copy(pb.CopyFileRequest(path=path, to=to), **self._options))

    async def move(self, path: str, to: str) -> None:
        """Atomic; what was called `to` loses that name."""
        with translated():
            await self._stub.Move(pb.MoveFileRequest(path=path, to=to), **self._options)

    async def link(self, path: str, to: str) -> FileInfo:
        """One name more."""
        with translated():
            return FileInfo.from_message(await self._stub.Link(pb.LinkFileRequest(path=path, to=to), **self._options))

    async def remove(self, path: str) -> None:
        with translated():
            await self._stub.Remove(pb.RemoveFileRequest(path=path), **self._options)

    async def change_mode(
        self, path: str, mine: Rights | None = None, others: Rights | None = None,
        grants: Mapping[str, Rights] | None = None,
    ) -> FileInfo:
        """What the owner, everybody, and named users may do; None leaves it, no rights take a grant back."""
        request = pb.ChangeModeRequest(
            path=path, mine=_message(mine), others=_message(others),
            grants={user: pb.Rights(read="read" in rights, append="append" in rights)
                    for user, rights in (grants or {}).items()},
        )
        with translated():
            return FileInfo.from_message(await self._stub.ChangeMode(request, **self._options))

    async def sync(self, path: str) -> FileInfo:
        """Returns once the file, as it is now, is on disk."""
        with translated():
            return FileInfo.from_message(await self._stub.Sync(pb.SyncFileRequest(path=path), **self._options))

    async def usage(self) -> Usage:
        with translated():
            found = await self._stub.Usage(pb.UsageRequest(), **self._options)
        tiers = tiers_from_messages(found.tiers)
        return Usage(found.files, found.files_limit, found.bytes, found.bytes_limit, tiers)


def tiers_from_messages(messages: Iterable[pb.Tier]) -> tuple[Tier, ...]:
    return tuple(Tier(t.name, t.pages, t.used_pages, t.page_bytes) for t in messages)


def _rights(message: pb.Rights) -> Rights:
    return frozenset(name for name in ("read", "append") if getattr(message, name))


def _message(rights: Rights | None) -> pb.Rights | None:
    return None if rights is None else pb.Rights(read="read" in rights, append="append" in rights)
