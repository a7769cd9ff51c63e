"""An MCP server that is reached by HTTP: the package's own transport, over answers of bounded length."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx2
from mcp.client.streamable_http import streamable_http_client

from cadenza.server.limits import CONNECT_SECONDS, MCP_MESSAGE_BYTES

STREAM = "text/event-stream"                # each event is bounded by the package


class BoundedStream(httpx2.AsyncByteStream):
    """Raises httpx2.StreamError past MCP_MESSAGE_BYTES."""

    def __init__(self, stream: httpx2.AsyncByteStream) -> None:
        self._stream = stream

    async def __aiter__(self) -> AsyncIterator[bytes]:
        size = 0
        async for chunk in self._stream:
            size += len(chunk)
            if size > MCP_MESSAGE_BYTES:
                raise httpx2.StreamError(f"the answer has over {MCP_MESSAGE_BYTES} bytes, the limit")
            yield chunk

    async def aclose(self) -> None:
        await self._stream.aclose()


class BoundedTransport(httpx2.AsyncHTTPTransport):
    """Answers are not unpacked: a small one may be a large one."""

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        request.headers["accept-encoding"] = "identity"
        response = await super().handle_async_request(request)
        response.headers.pop("content-encoding", None)
        assert isinstance(response.stream, httpx2.AsyncByteStream)
        if not response.headers.get("content-type", "").lower().startswith(STREAM):
            response.stream = BoundedStream(response.stream)
        return response


@asynccontextmanager
async def mcp_http(url: str) -> AsyncIterator[Any]:
    """Its streams. A call's own timeout ends a read."""
    timeout = httpx2.Timeout(None, connect=CONNECT_SECONDS)
    async with (
        httpx2.AsyncClient(transport=BoundedTransport(), timeout=timeout) as client,
        streamable_http_client(url, http_client=client, max_sse_event_size=MCP_MESSAGE_BYTES) as streams,
    ):
        yield streams
