"""The image service: uploads in chunks, checked against their header before anything is kept."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import re
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from google.protobuf import timestamp_pb2

from cadenza.kernel.limits import IMAGE_BYTES
from cadenza.kvfs.errors import Invalid, LimitExceeded
from cadenza.sdk.proto.cadenza.v1 import images_pb2 as pb
from cadenza.sdk.proto.cadenza.v1.images_pb2_grpc import ImageServiceServicer
from cadenza.server.boundary import caller
from cadenza.server.limits import NAME_CHARACTERS, UPLOADS_PER_USER
from cadenza.server.listing import page
from cadenza.server.requests import Requests

if TYPE_CHECKING:
    from cadenza.kernel.images import Image, ImageStore

DIGEST = re.compile(r"[0-9a-f]{64}")
NAME = re.compile(rf"[A-Za-z0-9][A-Za-z0-9._-]{{0,{NAME_CHARACTERS - 1}}}")
LIKE_A_DIGEST = re.compile(r"[0-9a-f]{8,}")
HASHED_INLINE_BYTES = 64 << 10             # a tenth of a millisecond or so
KINDS = ("", "python", "component")


class ImageService(ImageServiceServicer):
    """Images of the caller. See images.proto."""

    def __init__(self, images: ImageStore) -> None:
        self._images = images
        self._requests: Requests[pb.Image] = Requests("upload")
        self._uploads: Counter[str] = Counter()

    async def Upload(self, request: Any, context: Any) -> pb.Image:  # noqa: N802
        user = caller.get()
        with self._upload_of(user):
            header = await _header(request)
            data = await _data(request, header)

            async def add() -> pb.Image:
                return image_message(await self._images.add(user, data, name=header.name, kind=header.kind))

            return await self._requests.once(user, header.request_id, header.SerializeToString(deterministic=True), add)

    async def Get(self, request: pb.GetImageRequest, context: Any) -> pb.Image:  # noqa: N802
        return image_message(self._images.get(caller.get(), request.reference))

    async def List(self, request: pb.ListImagesRequest, context: Any) -> pb.ListImagesResponse:  # noqa: N802
        images = self._images.list(caller.get())
        messages, token = page(
            images, lambda image: [image.created_at, image.digest], image_message, request.page_size, request.page_token
        )
        return pb.ListImagesResponse(images=messages, next_page_token=token)

    async def Delete(self, request: pb.DeleteImageRequest, context: Any) -> pb.DeleteImageResponse:  # noqa: N802
        self._images.delete(caller.get(), request.reference)
        return pb.DeleteImageResponse()

    @contextmanager
    def _upload_of(self, user: str) -> Iterator[None]:
        if self._uploads[user] >= UPLOADS_PER_USER:
            raise LimitExceeded(
                f"{UPLOADS_PER_USER} uploads of yours are under way, the limit; wait for one to end", "uploads_per_user"
            )
        self._uploads[user] += 1
        try:
            yield
        finally:
            self._uploads[user] -= 1
            if not self._uploads[user]:
                del self._uploads[user]


def image_message(image: Image) -> pb.Image:
    created_at = timestamp_pb2.Timestamp()
    created_at.FromNanoseconds(int(image.created_at * 1e9))
    return pb.Image(
        digest=image.digest, name=image.name, kind=image.kind, size_bytes=image.size_bytes, created_at=created_at,
        hosts=image.manifest.hosts, tools=image.manifest.tools,
    )  # fmt: skip


async def _header(requests: AsyncIterator[pb.UploadRequest]) -> pb.UploadHeader:
    """The first message, checked."""
    async for request in requests:
        if request.WhichOneof("part") == "header":
            _check_header(request.header)
            return request.header
        break
    raise Invalid("the first message of an upload must be its header", "header")


def _check_header(header: pb.UploadHeader) -> None:
    if not DIGEST.fullmatch(header.digest):
        raise Invalid("digest must be the SHA-256 of the data in 64 lower-case hexadecimal digits", "digest")
    if header.kind not in KINDS:
        raise Invalid(f"kind {header.kind!r} must be 'python', 'component' or empty", "kind")
    if header.name and not NAME.fullmatch(header.name):
        raise Invalid(
            f"name {header.name!r} must be 1 to {NAME_CHARACTERS} letters, digits and . _ -, "
            "and begin with a letter or digit", "name"
        )  # fmt: skip
    if LIKE_A_DIGEST.fullmatch(header.name):
        raise Invalid(f"name {header.name!r} looks like a digest; choose one that is not all hexadecimal", "name")
    if header.size_bytes > IMAGE_BYTES:
        raise LimitExceeded(
            f"the image has {header.size_bytes} bytes, the limit is {IMAGE_BYTES}; leave out what it does not need",
            "image_bytes",
        )


async def _data(requests: AsyncIterator[pb.UploadRequest], header: pb.UploadHeader) -> bytes:
    """The chunks in one piece, as long as the header says and with its digest. Never holds more than that."""
    data = bytearray()
    hasher = hashlib.sha256()
    async for request in requests:
        if request.WhichOneof("part") != "chunk":
            raise Invalid("after its header an upload must hold chunks only", "chunk")
        if len(data) + len(request.chunk) > header.size_bytes:
            raise Invalid(f"the upload goes on after the {header.size_bytes} bytes its header says", "size_bytes")
        data += request.chunk
        await _hash(hasher, request.chunk)
    if len(data) < header.size_bytes:
        raise Invalid(
            f"the upload ended after {len(data)} of the {header.size_bytes} bytes its header says", "size_bytes"
        )
    digest = hasher.hexdigest()
    if not hmac.compare_digest(digest, header.digest):
        raise Invalid(f"the data has digest {digest}, the header says {header.digest}; upload it again", "digest")
    return bytes(data)


async def _hash(hasher: hashlib._Hash, chunk: bytes) -> None:
    """Large chunks are hashed on another thread: the event loop is the kernel's."""
    if len(chunk) > HASHED_INLINE_BYTES:
        await asyncio.to_thread(hasher.update, chunk)
    else:
        hasher.update(chunk)
