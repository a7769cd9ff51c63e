"""The daemon as a whole: health, reflection, facts, metrics, ports, deadlines, and how it stops."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Never, cast

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from cadenza.kvfs.errors import Invalid
from cadenza.sdk.client import Client, ClientError, DeadlineExceeded, ExitStatus, Output, Unavailable
from cadenza.server.auth import add_key
from cadenza.server.daemon import SERVICES, Daemon
from cadenza.server.metrics import CallMetrics
from cadenza.server.options import ListenOptions

from .fake_kernel import FakeKernel
from .serving import PROGRAM, run, served


def daemon_of(kernel: FakeKernel, options: ListenOptions) -> Daemon:
    from cadenza.kernel.kernel import Kernel

    return Daemon(cast(Kernel, kernel), options)


def test_health_of_each_service() -> None:
    async def test() -> None:
        async with served() as server, grpc.aio.insecure_channel(server.daemon.address) as channel:
            stub = health_pb2_grpc.HealthStub(channel)
            for service in ("", *SERVICES):
                answer = await stub.Check(health_pb2.HealthCheckRequest(service=service))
                assert answer.status == health_pb2.HealthCheckResponse.SERVING
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await stub.Check(health_pb2.HealthCheckRequest(service="nothing"))
            assert caught.value.code() is grpc.StatusCode.NOT_FOUND

            for there, status in ((False, "NOT_SERVING"), (True, "SERVING")):
                server.kernel.device_changed(there)
                await asyncio.sleep(0)
                answer = await stub.Check(health_pb2.HealthCheckRequest())
                assert health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status) == status

    assert set(SERVICES) == {f"cadenza.v1.{name}Service" for name in ("Adapter", "File", "Image", "Process", "System")}
    run(test())


async def reflected(channel: grpc.aio.Channel) -> set[str]:
    stub = reflection_pb2_grpc.ServerReflectionStub(channel)
    request = reflection_pb2.ServerReflectionRequest(list_services="")
    answers = [answer async for answer in stub.ServerReflectionInfo(iter([request]))]
    return {service.name for service in answers[0].list_services_response.service}


def test_reflection_on_loopback() -> None:
    async def test() -> None:
        async with served() as server, grpc.aio.insecure_channel(server.daemon.address) as channel:
            assert set(SERVICES) < await reflected(channel)

    run(test())


def test_no_reflection_off_loopback(tmp_path: Path, certificate: tuple[Path, Path]) -> None:
    add_key(tmp_path / "keys", "ann")
    options = ListenOptions("0.0.0.0:0", keys=tmp_path / "keys", tls_cert=certificate[0], tls_key=certificate[1])

    async def test() -> None:
        async with served(options) as server:
            target = "127.0.0.1:" + server.daemon.address.rpartition(":")[2]
            trust = grpc.ssl_channel_credentials(certificate[0].read_bytes())
            async with grpc.aio.secure_channel(target, trust) as channel:
                with pytest.raises(grpc.aio.AioRpcError) as caught:
                    await reflected(channel)
                assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED

    run(test())


def test_facts_and_statistics() -> None:
    async def test() -> None:
        async with served() as server:
            facts = await server.client.facts()
            assert (facts.model, facts.device, facts.user) == ("fake", "none", "local")
            assert (facts.pages, facts.page_tokens, facts.kv_tokens, facts.context_tokens) == (64, 16, 1024, 512)
            assert await server.client.statistics() == {"processes": 0.0, "kv_pages_free": 64.0}

    run(test())


def test_a_deadline_cancels_the_work() -> None:
    async def test() -> None:
        async with served() as server, Client(server.daemon.address, timeout=0.2) as hasty:
            server.kernel.images.slow.clear()
            with pytest.raises(DeadlineExceeded):
                await hasty.upload(PROGRAM)
            while server.kernel.images.waiting:
                await asyncio.sleep(0.01)
            server.kernel.images.slow.set()
            assert server.kernel.images.added == 0

    run(test())


def test_a_port_is_had_by_one_daemon() -> None:
    async def test() -> None:
        async with served() as server:
            with pytest.raises(Invalid, match="another daemon"):
                await daemon_of(FakeKernel(), ListenOptions(server.daemon.address)).start()

    run(test())


def test_stopping_ends_processes_and_tells_their_clients() -> None:
    async def test() -> None:
        kernel = FakeKernel()
        daemon = daemon_of(kernel, ListenOptions("127.0.0.1:0"))
        await daemon.start()
        async with Client(daemon.address) as client:
            image = await client.upload(PROGRAM)
            polite = await client.spawn(image, {"hang": True, "say": ["here"]})
            stubborn = await client.spawn(image, {"hang": True, "stubborn": True})
            attached, waiting = polite.attach(), asyncio.ensure_future(stubborn.wait())
            assert isinstance(await anext(attached), Output)
            while not kernel.table[stubborn.pid].waiting:
                await asyncio.sleep(0.01)
            await daemon.stop()
            assert await anext(attached) == ExitStatus("killed", 137, "signal terminate")
            assert await waiting == ExitStatus("killed", 137, "signal kill")
            with pytest.raises(Unavailable):
                await client.facts()
            await daemon.stop()

    run(test())


def test_metrics_count_calls_and_the_kernel() -> None:
    async def test() -> None:
        async with served(ListenOptions("127.0.0.1:0", metrics_port=0)) as server:
            await server.client.facts()
            with pytest.raises(ClientError):
                await server.client.process(1)
            text = await scraped(server.daemon.metrics_address, "GET /metrics HTTP/1.1")
            assert "200 OK" in text
            assert 'cadenza_calls_total{method="/cadenza.v1.SystemService/Facts",status="OK"} 1.0' in text
            assert 'cadenza_calls_total{method="/cadenza.v1.ProcessService/Get",status="NOT_FOUND"} 1.0' in text
            assert "cadenza_kv_pages_free 64.0" in text
            assert "404" in await scraped(server.daemon.metrics_address, "GET / HTTP/1.1")
            assert await scraped(server.daemon.metrics_address, "nonsense") == ""

    run(test())


def test_metrics_of_calls_that_were_left() -> None:
    metrics = CallMetrics(dict)
    metrics.count("/m", "CANCELLED", 0.5)
    assert metrics.registry.get_sample_value("cadenza_call_seconds_sum", {"method": "/m"}) == 0.5


def test_unknown_methods_are_unimplemented() -> None:
    async def test() -> None:
        async with served() as server, grpc.aio.insecure_channel(server.daemon.address) as channel:
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await channel.unary_unary("/cadenza.v1.ImageService/Format")(cast(Never, b""))
            assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED

    run(test())


async def scraped(address: str, request: str) -> str:
    host, _, port = address.partition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(f"{request}\r\nHost: x\r\n\r\n".encode())
    text = (await reader.read()).decode()
    writer.close()
    await writer.wait_closed()
    return text
