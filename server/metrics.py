"""Figures for Prometheus: of each call, and what the kernel counts; served over HTTP on loopback."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Iterator, Mapping
from types import TracebackType

from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.registry import Collector

HOST = "127.0.0.1"
REQUEST_SECONDS = 5.0                       # for a scraper to say what it wants
REQUEST_LINES = 100
Statistics = Callable[[], Mapping[str, float]]


class CallMetrics:
    """Counts calls by method and status, and their time."""

    def __init__(self, statistics: Statistics) -> None:
        """`statistics` is asked at each scrape; its names become `cadenza_NAME`."""
        self.registry = CollectorRegistry()
        self.registry.register(_Kernel(statistics))
        labels = ["method", "status"]
        self._calls = Counter("cadenza_calls", "Calls that were answered", labels, registry=self.registry)
        self._seconds = Histogram("cadenza_call_seconds", "From request to answer", ["method"], registry=self.registry)

    def count(self, method: str, status: str, seconds: float) -> None:
        self._calls.labels(method, status).inc()
        self._seconds.labels(method).observe(seconds)


class _Kernel(Collector):
    def __init__(self, statistics: Statistics) -> None:
        self._statistics = statistics

    def collect(self) -> Iterator[GaugeMetricFamily]:
        for name, value in sorted(self._statistics().items()):
            yield GaugeMetricFamily(f"cadenza_{re.sub('[^a-zA-Z0-9_]', '_', name)}", "of the kernel", value=value)


class MetricsServer:
    """Answers `GET /metrics` from the event loop, so that the kernel is read between steps, never amid one."""

    def __init__(self, registry: CollectorRegistry, port: int) -> None:
        self._registry = registry
        self._port = port
        self._server: asyncio.Server | None = None

    @property
    def address(self) -> str:
        """host:port, once started."""
        assert self._server is not None
        host, port = self._server.sockets[0].getsockname()[:2]
        return f"{host}:{port}"

    async def __aenter__(self) -> MetricsServer:
        """Raises OSError if the port is taken."""
        self._server = await asyncio.start_server(self._answer, HOST, self._port)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._server is not None:
            self._server.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(REQUEST_SECONDS):
                target = await _target(reader)
                writer.write(self._response(target))
                await writer.drain()
        except (TimeoutError, ConnectionError, ValueError):
            pass  # a scraper that leaves or talks nonsense gets no answer
        finally:
            writer.close()

    def _response(self, target: str) -> bytes:
        if target != "/metrics":
            return _http("404 Not Found", "text/plain", b"try /metrics\n")
        return _http("200 OK", CONTENT_TYPE_LATEST, generate_latest(self._registry))


async def _target(reader: asyncio.StreamReader) -> str:
    """The target of a GET; reads its headers to their end. Raises ValueError if it is no GET."""
    method, target, _ = (await reader.readline()).decode("latin-1").split(" ", 2)
    for _line in range(REQUEST_LINES):
        if (await reader.readline()).strip() == b"":
            break
    if method != "GET":
        raise ValueError(method)
    return target.partition("?")[0]


def _http(status: str, kind: str, body: bytes) -> bytes:
    head = f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    return head.encode() + body
