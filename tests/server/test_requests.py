"""Request ids: a repeated request is done once, whoever of its waiters leaves."""

from __future__ import annotations

import asyncio

import grpc
import pytest

from cadenza.kvfs.errors import Exists, Invalid
from cadenza.sdk.proto.cadenza.v1 import processes_pb2 as pb
from cadenza.sdk.proto.cadenza.v1.processes_pb2_grpc import ProcessServiceStub
from cadenza.server.requests import Requests

from .serving import PROGRAM, run, served


class Work:
    """Counts how often it is begun; ends when `go` is set."""

    def __init__(self) -> None:
        self.begun = 0
        self.cancelled = 0
        self.go = asyncio.Event()

    async def __call__(self) -> int:
        self.begun += 1
        number = self.begun
        try:
            await self.go.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        return number


def test_repeated_while_under_way_and_afterwards() -> None:
    async def test() -> None:
        requests: Requests[int] = Requests("test")
        work = Work()
        waiting = [asyncio.ensure_future(requests.once("ann", "r", b"x", work)) for _ in range(3)]
        await asyncio.sleep(0)
        work.go.set()
        assert await asyncio.gather(*waiting) == [1, 1, 1]
        assert await requests.once("ann", "r", b"x", work) == 1
        assert await requests.once("bob", "r", b"x", work) == 2
        assert await requests.once("ann", "", b"x", work) == 3

    run(test())


def test_one_waiter_leaves_then_the_last() -> None:
    async def test() -> None:
        requests: Requests[int] = Requests("test")
        work = Work()
        first, second = (asyncio.ensure_future(requests.once("ann", "r", b"x", work)) for _ in range(2))
        await asyncio.sleep(0.01)
        first.cancel()
        await asyncio.sleep(0.01)
        assert work.cancelled == 0
        second.cancel()
        await asyncio.sleep(0.01)
        assert work.cancelled == 1
        work.go.set()
        assert await requests.once("ann", "r", b"y", work) == 2

    run(test())


def test_failures_are_forgotten() -> None:
    async def test() -> None:
        requests: Requests[int] = Requests("test")

        async def fail() -> int:
            raise Invalid("no")

        for _ in range(2):
            with pytest.raises(Invalid):
                await requests.once("ann", "r", b"x", fail)
        work = Work()
        work.go.set()
        assert await requests.once("ann", "r", b"other", work) == 1

    run(test())


def test_same_id_other_content() -> None:
    async def test() -> None:
        requests: Requests[int] = Requests("test")
        work = Work()
        work.go.set()
        await requests.once("ann", "r", b"x", work)
        with pytest.raises(Exists, match="'r'"):
            await requests.once("ann", "r", b"y", work)

    run(test())


def test_the_oldest_is_forgotten() -> None:
    async def test() -> None:
        requests: Requests[int] = Requests("test", per_user=2)
        work = Work()
        work.go.set()
        assert [await requests.once("ann", name, b"", work) for name in "abab"] == [1, 2, 1, 2]
        assert [await requests.once("ann", name, b"", work) for name in "cba"] == [3, 2, 4]

    run(test())


def test_spawn_twice_with_one_id() -> None:
    async def test() -> None:
        async with served() as server, grpc.aio.insecure_channel(server.daemon.address) as channel:
            await server.client.upload(PROGRAM, name="agent")
            stub = ProcessServiceStub(channel)
            request = pb.SpawnRequest(image="agent", arguments='{"hang": true}', request_id="once")
            first, second = await stub.Spawn(request), await stub.Spawn(request)
            assert first == second
            assert len(server.kernel.table) == 1
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await stub.Spawn(pb.SpawnRequest(image="agent", arguments="{}", request_id="once"))
            assert caught.value.code() is grpc.StatusCode.ALREADY_EXISTS

    run(test())
