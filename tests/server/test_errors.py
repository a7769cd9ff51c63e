"""Every error of the tree on the wire: its status, its details, and what the client makes of it."""

from __future__ import annotations

import grpc
import pytest
from google.rpc import error_details_pb2

from cadenza.kvfs import errors
from cadenza.kvfs.errors import CadenzaError, Invalid, LimitExceeded
from cadenza.sdk.client import ClientError
from cadenza.server.errors import rpc_status
from cadenza.server.limits import STATUS_CHARACTERS

from .serving import PROGRAM, run, served


def every_error() -> list[type[CadenzaError]]:
    found = [e for e in vars(errors).values() if isinstance(e, type) and issubclass(e, CadenzaError)]
    assert len(found) > 10
    return found


@pytest.mark.parametrize("kind", every_error())
def test_status_and_reason(kind: type[CadenzaError]) -> None:
    status = rpc_status(kind("what, which, how"))
    assert status.code == grpc.StatusCode[kind.status].value[0]
    assert status.message == "what, which, how"
    info = error_details_pb2.ErrorInfo()
    assert status.details[0].Unpack(info)
    assert (info.domain, info.reason) == ("cadenza", kind.errno.upper().replace("-", "_"))


@pytest.mark.parametrize("kind", every_error())
def test_the_client_raises_its_like(kind: type[CadenzaError]) -> None:
    async def test() -> ClientError:
        async with served() as server:
            server.kernel.images.fault = kind("grüße, 漢字")
            with pytest.raises(ClientError) as caught:
                await server.client.upload(PROGRAM)
            return caught.value

    error = run(test())
    assert (error.errno, error.message) == (kind.errno, "grüße, 漢字")


def test_field_and_limit_arrive() -> None:
    async def test() -> None:
        async with served() as server:
            server.kernel.images.fault = Invalid("no", "colour")
            with pytest.raises(ClientError) as caught:
                await server.client.upload(PROGRAM)
            assert (caught.value.field, caught.value.limit) == ("colour", "")
            server.kernel.images.fault = LimitExceeded("no", "images_per_user")
            with pytest.raises(ClientError) as caught:
                await server.client.upload(PROGRAM)
            assert (caught.value.field, caught.value.limit) == ("", "images_per_user")

    run(test())


@pytest.mark.parametrize("message", ["x" * 100_000, "漢" * 50_000, "\ud800 lone", "line\nline\0"])
def test_messages_of_any_length_and_content_arrive(message: str) -> None:
    async def test() -> None:
        async with served() as server:
            server.kernel.images.fault = Invalid(message, "data")
            with pytest.raises(ClientError) as caught:
                await server.client.upload(PROGRAM)
            assert (caught.value.errno, caught.value.field) == ("invalid", "data")
            assert caught.value.message[:4] == message.encode(errors="replace").decode()[:4]
            assert len(caught.value.message.encode()) <= STATUS_CHARACTERS

    run(test())
