"""Interface `tools`: what an image is granted beyond the kernel: tools of MCP servers, and HTTP."""

from __future__ import annotations

from base64 import b64encode
from typing import Any

from cadenza.kernel.http_request import HttpRequest, HttpResponse
from cadenza.kernel.kernel import Kernel
from cadenza.kernel.limits import HTTP_PIECE_BYTES
from cadenza.kernel.process import Process
from cadenza.kernel.tools import HttpCall, Tool, ToolCall, ToolResult
from cadenza.kernel.wasm.seams import quick
from cadenza.kvfs.errors import LimitExceeded
from cadenza.syscalls.arguments import fetch_object, fetch_timeout, fetch_tool


class ToolCalls:
    def __init__(self, kernel: Kernel) -> None:
        self._tools = kernel.tools

    def catalog(self, process: Process) -> list[Tool]:
        return self._tools.catalog(process)

    def call(self, process: Process, name: str, arguments: str, timeout_ns: int | None) -> int:
        process.handles.ensure_room()
        given, seconds = fetch_object(arguments), fetch_timeout(timeout_ns)
        return process.handles.add(self._tools.call(process, fetch_tool(name), given, seconds))

    @quick
    def take_result(self, process: Process, call: int) -> ToolResult:
        return process.handles.get(call, ToolCall).take()

    def request(self, process: Process, request: Any) -> int:
        process.handles.ensure_room()
        parsed = HttpRequest.parse(request.method, request.url, request.headers, request.body)
        return process.handles.add(self._tools.request(process, parsed, fetch_timeout(request.timeout_ns)))

    def take_response(self, process: Process, call: int) -> HttpResponse:
        return process.handles.get(call, HttpCall).take()

    def take_bytes(self, process: Process, call: int, first: int, count: int) -> str:
        """In base64: a text crosses in one piece, a list of bytes one by one."""
        if count > HTTP_PIECE_BYTES:
            raise LimitExceeded(f"{count} bytes at once; at most {HTTP_PIECE_BYTES}: ask in parts", "http_piece_bytes")
        body = process.handles.get(call, HttpCall).take().body
        return b64encode(body[first : first + count]).decode()
