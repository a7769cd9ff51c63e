"""The image service over a real connection: uploads that arrive, and those that must leave nothing behind."""

from __future__ import annotations

import asyncio
import hashlib
from pathlib import Path

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status

from cadenza.kernel.limits import IMAGE_BYTES
from cadenza.sdk.client import ClientError, Invalid, LimitExceeded, NotFound
from cadenza.sdk.proto.cadenza.v1 import images_pb2 as pb
from cadenza.sdk.proto.cadenza.v1.images_pb2_grpc import ImageServiceStub
from cadenza.server.limits import UPLOADS_PER_USER

from .serving import PROGRAM, Served, run, served

DIGEST = hashlib.sha256(PROGRAM).hexdigest()


def header(**changes: object) -> pb.UploadRequest:
    fields = {"name": "agent", "digest": DIGEST, "size_bytes": len(PROGRAM), **changes}
    return pb.UploadRequest(header=pb.UploadHeader(**fields))  # type: ignore[arg-type]


def chunk(data: bytes) -> pb.UploadRequest:
    return pb.UploadRequest(chunk=data)


async def refused(server: Served, *requests: pb.UploadRequest) -> status_pb2.Status:
    """The status of an upload of these messages; nothing may be left of it."""
    async with grpc.aio.insecure_channel(server.daemon.address) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await ImageServiceStub(channel).Upload(iter(requests))
    assert server.kernel.images.kept == {}
    assert server.kernel.images.added == 0
    status = rpc_status.from_call(caught.value)
    assert isinstance(status, status_pb2.Status)
    return status


def field_of(status: status_pb2.Status) -> str:
    """The field of its BadRequest."""
    violations = error_details_pb2.BadRequest()
    assert any(detail.Unpack(violations) for detail in status.details)
    return str(violations.field_violations[0].field)


def test_upload_get_list_delete() -> None:
    async def test() -> None:
        async with served() as server:
            sent: list[tuple[int, int]] = []
            image = await server.client.upload(PROGRAM, name="agent", progress=lambda *done: sent.append(done))
            assert (image.digest, image.name, image.kind, image.size_bytes) == (DIGEST, "agent", "python", len(PROGRAM))
            assert sent == [(len(PROGRAM), len(PROGRAM))]
            assert await server.client.image(DIGEST[:8]) == image
            assert await server.client.image("agent") == image
            assert await server.client.images() == [image]
            await server.client.delete_image("agent")
            assert await server.client.images() == []
            with pytest.raises(NotFound) as caught:
                await server.client.delete_image("agent")
            assert caught.value.errno == "not-found"

    run(test())


def test_several_chunks_become_one_image() -> None:
    async def test() -> None:
        data = b"#" * (3 << 20) + b"\n"
        async with served() as server:
            sent: list[int] = []
            image = await server.client.upload(data, progress=lambda done, total: sent.append(done))
            assert image.digest == hashlib.sha256(data).hexdigest()
            assert sent == [1 << 20, 2 << 20, 3 << 20, len(data)]

    run(test())


def test_truncated_upload() -> None:
    async def test() -> None:
        async with served() as server:
            status = await refused(server, header(), chunk(PROGRAM[:-1]))
            assert status.code == grpc.StatusCode.INVALID_ARGUMENT.value[0]
            assert f"after {len(PROGRAM) - 1} of the {len(PROGRAM)} bytes" in status.message
            assert field_of(status) == "size_bytes"

    run(test())


def test_upload_longer_than_its_header() -> None:
    async def test() -> None:
        async with served() as server:
            status = await refused(server, header(), chunk(PROGRAM), chunk(b"#"))
            assert field_of(status) == "size_bytes"

    run(test())


def test_wrong_digest() -> None:
    async def test() -> None:
        async with served() as server:
            status = await refused(server, header(), chunk(PROGRAM.replace(b"pass", b"quit")))
            assert field_of(status) == "digest"
            assert DIGEST in status.message

    run(test())


def test_too_large_is_refused_by_its_header() -> None:
    async def test() -> None:
        async with served() as server:
            status = await refused(server, header(size_bytes=IMAGE_BYTES + 1))
            assert status.code == grpc.StatusCode.RESOURCE_EXHAUSTED.value[0]
            assert str(IMAGE_BYTES) in status.message
            quota, info = error_details_pb2.QuotaFailure(), error_details_pb2.ErrorInfo()
            assert any(detail.Unpack(quota) for detail in status.details)
            assert any(detail.Unpack(info) for detail in status.details)
            assert quota.violations[0].subject == "image_bytes"
            assert (info.reason, info.domain, dict(info.metadata)) == ("LIMIT", "cadenza", {"limit": "image_bytes"})

    run(test())


@pytest.mark.parametrize(
    ("requests", "field"),
    [
        ((), "header"),
        ((chunk(PROGRAM),), "header"),
        ((header(), header()), "chunk"),
        ((header(digest="abc"),), "digest"),
        ((header(kind="elf"),), "kind"),
        ((header(name="../etc"),), "name"),
        ((header(name="deadbeef"),), "name"),
        ((header(name="n" * 129),), "name"),
        ((header(request_id="r" * 129), chunk(PROGRAM)), "request_id"),
    ],
)
def test_malformed_uploads(requests: tuple[pb.UploadRequest, ...], field: str) -> None:
    async def test() -> None:
        async with served() as server:
            assert field_of(await refused(server, *requests)) == field

    run(test())


def test_syntax_error_keeps_file_and_line() -> None:
    async def test() -> None:
        async with served() as server:
            with pytest.raises(Invalid, match=r"agent\.py, line 1") as caught:
                await server.client.upload(b"def (")
            assert (caught.value.errno, caught.value.field) == ("invalid", "data")

    run(test())


def test_unexpected_error_is_an_incident_that_says_nothing_else(caplog: pytest.LogCaptureFixture) -> None:
    async def test() -> ClientError:
        async with served() as server:
            with pytest.raises(ClientError) as caught:
                await server.client.upload(b"bug")
            return caught.value

    error = run(test())
    assert error.errno == "internal"
    assert "secret" not in error.message
    incident = error.message.partition("incident ")[2].partition(";")[0]
    assert any(incident in record.getMessage() and record.exc_info for record in caplog.records)


def test_client_that_leaves_cancels_its_upload() -> None:
    async def test() -> None:
        async with served() as server:
            server.kernel.images.slow.clear()
            upload = asyncio.ensure_future(server.client.upload(PROGRAM))
            while not server.kernel.images.waiting:
                await asyncio.sleep(0.01)
            upload.cancel()
            while server.kernel.images.waiting:
                await asyncio.sleep(0.01)
            server.kernel.images.slow.set()
            assert server.kernel.images.kept == {}

    run(test())


def test_uploads_under_way_are_bounded() -> None:
    async def test() -> None:
        async with served() as server:
            server.kernel.images.slow.clear()
            held = [asyncio.ensure_future(server.client.upload(PROGRAM)) for _ in range(UPLOADS_PER_USER)]
            while server.kernel.images.waiting < UPLOADS_PER_USER:
                await asyncio.sleep(0.01)
            with pytest.raises(LimitExceeded) as caught:
                await server.client.upload(PROGRAM)
            assert caught.value.limit == "uploads_per_user"
            server.kernel.images.slow.set()
            assert {image.digest for image in await asyncio.gather(*held)} == {DIGEST}
            await server.client.upload(PROGRAM)

    run(test())


def test_list_in_pages() -> None:
    async def test() -> None:
        async with served() as server, grpc.aio.insecure_channel(server.daemon.address) as channel:
            uploaded = [(await server.client.upload(b"# %d" % n)).digest for n in range(5)]
            stub = ImageServiceStub(channel)
            seen, token = [], ""
            for size in (2, 2, 1):
                page = await stub.List(pb.ListImagesRequest(page_size=2, page_token=token))
                assert len(page.images) == size
                seen += [image.digest for image in page.images]
                token = page.next_page_token
            assert token == ""
            assert seen == uploaded

    run(test())


@pytest.mark.parametrize("token", ["nonsense", "W10=", "e30=", "WyJhIl0=", "WzEsMiwzXQ=="])
def test_foreign_page_tokens(token: str) -> None:
    async def test() -> None:
        async with served() as server, grpc.aio.insecure_channel(server.daemon.address) as channel:
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await ImageServiceStub(channel).List(pb.ListImagesRequest(page_token=token))
            status = rpc_status.from_call(caught.value)
            assert status is not None
            assert field_of(status) == "page_token"

    run(test())


def test_directories_have_one_digest(tmp_path: Path) -> None:
    async def test() -> None:
        for name, order in (("one", ("main.py", "sub/tool.py")), ("two", ("sub/tool.py", "main.py"))):
            for path in order:
                (tmp_path / name / path).parent.mkdir(parents=True, exist_ok=True)
                (tmp_path / name / path).write_text(f"# {path}\n")
            (tmp_path / name / "notes.txt").write_text(name)
        async with served() as server:
            one = await server.client.upload(tmp_path / "one")
            two = await server.client.upload(tmp_path / "two", reuse=True)
            assert one.name == "one"
            assert (two.name, two.digest) == ("two", one.digest)
            assert await server.client.upload(tmp_path / "two", reuse=True) == two
            assert server.kernel.images.added == 2
            with pytest.raises(Invalid, match=r"main\.py"):
                await server.client.upload(tmp_path / "one" / "sub")

    run(test())
