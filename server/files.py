"""The file service: KV files by name."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable
from typing import TYPE_CHECKING, Any

from cadenza.kernel.handles import Wait
from cadenza.kvfs.errors import Invalid
from cadenza.sdk.proto.cadenza.v1 import files_pb2 as pb
from cadenza.sdk.proto.cadenza.v1.files_pb2_grpc import FileServiceServicer
from cadenza.server.boundary import caller
from cadenza.server.events import timestamp
from cadenza.server.limits import READ_TOKENS
from cadenza.server.listing import page

if TYPE_CHECKING:
    from cadenza.kernel.kernel import Kernel
    from cadenza.kernel.storage import Sync
    from cadenza.kvfs.access import Rights
    from cadenza.kvfs.directory import Entry
    from cadenza.kvfs.file import File

CHARACTER_TOKENS = 4                         # that one character may be spread over: it has so many bytes


class FileService(FileServiceServicer):
    """Files as the caller may see them. See files.proto."""

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel
        self._files = kernel.files

    async def List(self, request: pb.ListFilesRequest, context: Any) -> pb.ListFilesResponse:  # noqa: N802
        user, path = caller.get(), request.path or "."
        try:
            entries = self._files.entries(user, path)
        except Invalid:                      # a file, or no path at all: then this says so again
            return pb.ListFilesResponse(files=[self._message(user, path, self._files.find(user, path))])
        messages, token = page(
            entries, lambda entry: [0, entry.name], lambda entry: self._entry(user, path, entry),
            request.page_size, request.page_token,
        )  # fmt: skip
        return pb.ListFilesResponse(files=messages, next_page_token=token)

    async def Get(self, request: pb.GetFileRequest, context: Any) -> pb.File:  # noqa: N802
        user = caller.get()
        return self._message(user, request.path, self._files.find(user, request.path))

    async def Read(  # noqa: N802
        self, request: pb.ReadFileRequest, context: Any
    ) -> AsyncGenerator[pb.ReadFileResponse, None]:
        file = self._files.open(caller.get(), request.path, frozenset({"read"}))
        try:
            tokens = file.tokens()
        finally:
            self._files.close(file)
        left = tokens[tokens >= 0].tolist()          # the others are being computed
        while left:
            text, taken = await self._text(left[:READ_TOKENS], last=len(left) <= READ_TOKENS)
            left = left[taken:]
            yield pb.ReadFileResponse(text=text)

    async def _text(self, tokens: list[int], *, last: bool) -> tuple[str, int]:
        """The text of the first of `tokens`, and how many those are: all, or so few that no character is cut."""
        text, taken = "", 0
        for taken in range(len(tokens), max(len(tokens) - CHARACTER_TOKENS, 0), -1):
            soon = self._kernel.language.detokenize(tokens[:taken], special=True)
            text = await soon if isinstance(soon, Awaitable) else soon
            if last or not text.endswith("\ufffd"):
                return text, taken
        return text, taken

    async def Copy(self, request: pb.CopyFileRequest, context: Any) -> pb.File:  # noqa: N802
        user = caller.get()
        copy = self._files.fork(user, self._files.find(user, request.path, "read"))
        try:
            self._files.link(user, copy, request.to)
        finally:
            self._files.close(copy)
        return self._message(user, request.to, copy)

    async def Move(self, request: pb.MoveFileRequest, context: Any) -> pb.MoveFileResponse:  # noqa: N802
        self._files.rename(caller.get(), request.path, request.to)
        return pb.MoveFileResponse()

    async def Link(self, request: pb.LinkFileRequest, context: Any) -> pb.File:  # noqa: N802
        user = caller.get()
        file = self._files.find(user, request.path)
        self._files.link(user, file, request.to)
        return self._message(user, request.to, file)

    async def Remove(self, request: pb.RemoveFileRequest, context: Any) -> pb.RemoveFileResponse:  # noqa: N802
        self._files.unlink(caller.get(), request.path)
        return pb.RemoveFileResponse()

    async def ChangeMode(self, request: pb.ChangeModeRequest, context: Any) -> pb.File:  # noqa: N802
        user = caller.get()
        file = self._files.find(user, request.path)
        mine = _rights(request.mine) if request.HasField("mine") else file.access.mine
        others = _rights(request.others) if request.HasField("others") else file.access.others
        self._files.change_mode(user, file, mine, others)
        for named, rights in request.grants.items():
            self._files.grant(user, file, named, _rights(rights))
        return self._message(user, request.path, file)

    async def Sync(self, request: pb.SyncFileRequest, context: Any) -> pb.File:  # noqa: N802
        user = caller.get()
        file = self._files.find(user, request.path, "append")
        sync = self._kernel.sync(file)
        await _ready(sync)
        sync.take()
        return self._message(user, request.path, file)

    async def Usage(self, request: pb.UsageRequest, context: Any) -> pb.UsageResponse:  # noqa: N802
        user, kernel = caller.get(), self._kernel
        size = kernel.engine.link.facts.page_bytes
        limits = kernel.files.limits
        return pb.UsageResponse(
            files=kernel.files.living.entries(user), files_limit=limits.files_per_user,
            bytes=kernel.files.pool.charged(user) * size, bytes_limit=limits.pages_per_user * size,
            tiers=tier_messages(kernel),
        )

    def _entry(self, user: str, path: str, entry: Entry) -> pb.File:
        if entry.directory:
            return pb.File(path=entry.name, directory=True)
        return self._message(user, entry.name, self._files.find(user, f"{path}/{entry.name}"))

    def _message(self, user: str, path: str, file: File) -> pb.File:
        access = file.access
        return pb.File(
            path=path, paths=file.paths, owner=file.owner, mine=_message_of(access.mine),
            others=_message_of(access.others),
            grants={named: _message_of(rights) for named, rights in access.told(file.owner, user).items()},
            tokens=len(file), hidden=file.hidden_tokens, pages=file.page_count,
            size_bytes=file.page_count * self._kernel.engine.link.facts.page_bytes, exact=file.exact,
            durable=file.durable, foreign=file.foreign, created_at=timestamp(file.created_ns / 1e9),
            modified_at=timestamp(file.modified_ns / 1e9),
        )


def tier_messages(kernel: Kernel) -> list[pb.Tier]:
    """Where everybody's pages lie."""
    size = kernel.engine.link.facts.page_bytes
    return [pb.Tier(name=name, pages=pages, used_pages=used, page_bytes=size) for name, pages, used in kernel.tiers()]


async def _ready(sync: Sync) -> None:
    ready = asyncio.Event()
    wait = Wait([0], [sync], every=True)
    wait.subscribe(ready.set)
    try:
        await ready.wait()
    finally:
        wait.abandon()


def _rights(message: pb.Rights) -> Rights:
    return frozenset(name for name in ("read", "append") if getattr(message, name))


def _message_of(rights: Rights) -> pb.Rights:
    return pb.Rights(read="read" in rights, append="append" in rights)
