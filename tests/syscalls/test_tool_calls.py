"""Interface `tools`: granted or refused, answered, timed out, cancelled, limited, and nothing left behind."""

from __future__ import annotations

import asyncio
from base64 import b64decode
from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from cadenza.kernel.http_request import Header, HttpRequest, HttpResponse
from cadenza.kernel.limits import (
    ARGUMENTS_BYTES,
    HTTP_BODY_BYTES,
    HTTP_PIECE_BYTES,
    TOOL_BYTES_PER_USER,
    TOOL_CALLS_AT_ONCE_PER_USER,
    TOOL_CALLS_PER_PROCESS,
    TOOL_CALLS_PER_USER,
    TOOL_SECONDS,
)
from cadenza.kernel.manifest import Manifest
from cadenza.kernel.process import Process
from cadenza.kernel.tools import Tool, ToolResult, Tools
from cadenza.kvfs.errors import (
    CadenzaError,
    Cancelled,
    Closed,
    Denied,
    Internal,
    Invalid,
    LimitExceeded,
    NotFound,
    NotReady,
)

from .desk import Desk, in_loop

ASKED = Manifest(("api.example.org", "*.example.net"), ("echo.*", "calendar.add"))
ALLOWED = Manifest(("*",), ("echo.*", "calendar.*"))


class Echo:
    """A performer: answers what it is asked; what is called `never` is not answered, `hold` when the test says so."""

    def __init__(self) -> None:
        self.go = asyncio.Event()
        self.begun = 0
        self.cancelled = 0

    def catalog(self) -> Sequence[Tool]:
        return [Tool(name, "", "{}") for name in ("echo.say", "calendar.add", "calendar.clear", "mail.send")]

    async def call(self, name: str, arguments: Mapping[str, Any]) -> ToolResult:
        self.begun += 1
        try:
            if name == "echo.hold":
                await self.go.wait()
            if name == "echo.never":
                await asyncio.Event().wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        if name == "echo.dead":
            raise Closed("MCP server 'echo' is down")
        if name == "echo.bug":
            raise ZeroDivisionError("ours")
        return ToolResult(f"{name} {dict(arguments)}", name == "echo.fail", False)

    async def request(self, request: HttpRequest) -> HttpResponse:
        return HttpResponse(200, [Header("x-method", request.method)], request.body * 1024, False)

    async def close(self) -> None:
        """Holds nothing."""


def office(echo: Echo | None = None, asked: Manifest = ASKED, allowed: Manifest = ALLOWED) -> Desk:
    desk = Desk(tools=Tools(echo or Echo(), allowed))
    desk.images.manifests = {"ada": asked, "bob": asked}
    return desk


def call(desk: Desk, process: Process, name: str, arguments: str = "{}", timeout_ns: int | None = None) -> int:
    handle: int = desk.ask(process, "tools.call", name, arguments, timeout_ns)
    return handle


def request(desk: Desk, process: Process, url: str, body: str = "") -> int:
    asked = {"method": "POST", "url": url, "headers": [], "body": body, "timeout_ns": None}
    handle: int = desk.ask(process, "tools.request", asked)
    return handle


# --- granted ---

@in_loop
async def test_a_tool_is_called_and_answers() -> None:
    async with office() as desk:
        process = desk.spawn()
        one, two = call(desk, process, "echo.say", '{"a": 1}'), call(desk, process, "echo.fail")
        with pytest.raises(NotReady):
            desk.ask(process, "tools.take-result", one)
        assert await desk.wait(process, one, two) == [one, two]
        assert desk.ask(process, "tools.take-result", one) == ToolResult("echo.say {'a': 1}", False, False)
        assert desk.ask(process, "tools.take-result", one).text == "echo.say {'a': 1}", "taking does not close it"
        assert desk.ask(process, "tools.take-result", two).failed
        with pytest.raises(NotFound):
            desk.ask(process, "tools.take-response", one)


@in_loop
async def test_a_response_is_taken_as_text_and_in_pieces() -> None:
    async with office() as desk:
        process = desk.spawn()
        handle = request(desk, process, "https://api.example.org/x", "hey!" * 80)
        await desk.wait(process, handle)
        response = desk.ask(process, "tools.take-response", handle)
        assert (response.status, response.size, response.text[:8]) == (200, 320 * 1024, "hey!hey!")
        pieces = [b64decode(desk.ask(process, "tools.take-bytes", handle, first, HTTP_PIECE_BYTES))
                  for first in range(0, response.size + 1, HTTP_PIECE_BYTES)]
        assert b"".join(pieces) == response.text.encode()
        with pytest.raises(LimitExceeded, match=str(HTTP_PIECE_BYTES)):
            desk.ask(process, "tools.take-bytes", handle, 0, HTTP_PIECE_BYTES + 1)


@in_loop
async def test_the_catalog_is_what_is_asked_for_and_allowed() -> None:
    async with office() as desk:
        assert [tool.name for tool in desk.ask(desk.spawn(), "tools.catalog")] == ["echo.say", "calendar.add"]
    async with Desk() as desk:
        assert desk.ask(desk.spawn(), "tools.catalog") == []


@pytest.mark.parametrize(("asked", "allowed", "words"), [
    (Manifest(), ALLOWED, r'not in the manifest .* `tools = \["echo.say"\]`'),
    (ASKED, Manifest(("*",)), "--mcp echo="),
])
def test_a_tool_that_is_not_asked_for_or_not_allowed_is_denied(asked: Manifest, allowed: Manifest, words: str) -> None:
    @in_loop
    async def test() -> None:
        async with office(asked=asked, allowed=allowed) as desk:
            with pytest.raises(Denied, match=words):
                call(desk, desk.spawn(), "echo.say")
    test()


@in_loop
async def test_a_host_that_is_not_asked_for_or_not_allowed_is_denied() -> None:
    async with office(allowed=Manifest(("api.example.org",))) as desk:
        process = desk.spawn()
        await desk.wait(process, request(desk, process, "https://api.example.org/"))
        with pytest.raises(Denied, match=r'`hosts = \["evil.org"\]`'):
            request(desk, process, "https://evil.org/")
        with pytest.raises(Denied, match=r"manifest"):
            request(desk, process, "https://api.example.org:8443/")
        with pytest.raises(Denied, match=r"--allow-host a\.example\.net"):
            request(desk, process, "https://a.example.net/")


@in_loop
async def test_a_kernel_without_a_performer_allows_nothing() -> None:
    async with Desk() as desk:
        desk.images.manifests = {"ada": ASKED}
        with pytest.raises(Denied, match="operator"):
            call(desk, desk.spawn(), "echo.say")


@in_loop
async def test_a_child_has_its_own_image_s_grants() -> None:
    async with office() as desk:
        parent = desk.spawn()
        desk.images.manifests = {"ada": Manifest()}
        child = desk.kernel.process("ada", desk.ask(parent, "process.spawn", "program-of-ada", "{}", False))
        await desk.wait(parent, call(desk, parent, "echo.say"))
        with pytest.raises(Denied, match="manifest"):
            call(desk, child, "echo.say")


@pytest.mark.parametrize(("name", "arguments", "timeout", "words"), [
    ("say", "{}", None, "SERVER.TOOL"), ("echo.*", "{}", None, "SERVER.TOOL"), ("echo.say", "[]", None, "JSON object"),
    ("echo.say", "{", None, "not JSON"), ("echo.say", " " * (ARGUMENTS_BYTES + 1), None, str(ARGUMENTS_BYTES)),
    ("echo.say", "[" * 60_000, None, "not JSON"), ("echo.say", "{}", int((TOOL_SECONDS + 1) * 1e9), "timeout"),
])
def test_what_is_malformed_is_refused_at_once(name: str, arguments: str, timeout: int | None, words: str) -> None:
    @in_loop
    async def test() -> None:
        async with office() as desk:
            with pytest.raises(Invalid, match=words):
                call(desk, desk.spawn(), name, arguments, timeout)
    test()


# --- how it ends ---

@pytest.mark.parametrize(("name", "timeout", "kind", "words"), [
    ("echo.dead", None, Closed, "'echo' is down"), ("echo.never", 1_000_000, Cancelled, "within 0.001 s"),
    ("echo.never", 0, Cancelled, "echo.never"),
])
def test_an_error_comes_with_the_completion(name: str, timeout: int | None, kind: type[CadenzaError],
                                            words: str) -> None:
    @in_loop
    async def test() -> None:
        async with office() as desk:
            process = desk.spawn()
            handle = call(desk, process, name, "{}", timeout)
            assert await desk.wait(process, handle) == [handle]
            with pytest.raises(kind, match=words):
                desk.ask(process, "tools.take-result", handle)
    test()


@in_loop
async def test_a_fault_of_ours_tells_the_program_nothing() -> None:
    async with office() as desk:
        process = desk.spawn()
        handle = call(desk, process, "echo.bug")
        await desk.wait(process, handle)
        with pytest.raises(Internal, match=r"echo\.bug") as error:
            desk.ask(process, "tools.take-result", handle)
        assert "ours" not in error.value.message


@in_loop
async def test_closing_the_handle_cancels_the_call() -> None:
    echo = Echo()
    async with office(echo) as desk:
        process = desk.spawn()
        handle = call(desk, process, "echo.never")
        await desk.settle()
        desk.ask(process, "events.close", handle)
        await desk.settle()
        assert (echo.begun, echo.cancelled) == (1, 1)
        assert desk.kernel.tools.statistics() == {"open": 0, "running": 0, "held_bytes": 0}


@in_loop
async def test_a_call_closed_before_its_turn_is_never_made() -> None:
    echo = Echo()
    async with office(echo) as desk:
        process = desk.spawn()
        desk.ask(process, "events.close", call(desk, process, "echo.say"))
        await desk.settle()
        assert echo.begun == 0


@in_loop
async def test_the_end_of_a_process_cancels_its_calls() -> None:
    echo = Echo()
    async with office(echo) as desk:
        process, other = desk.spawn(), desk.spawn("bob")
        for _ in range(10):
            call(desk, process, "echo.never")
        held = call(desk, other, "echo.hold")
        await desk.settle()
        process.kill()
        await desk.settle()
        assert echo.cancelled == 10
        assert desk.kernel.tools.statistics()["open"] == 1, "another user's goes on"
        echo.go.set()
        await desk.wait(other, held)


# --- limits ---

@in_loop
async def test_a_storm_of_one_process_is_refused_until_it_closes_some() -> None:
    async with office() as desk:
        process = desk.spawn()
        handles = [call(desk, process, "echo.say") for _ in range(TOOL_CALLS_PER_PROCESS)]
        with pytest.raises(LimitExceeded, match=str(TOOL_CALLS_PER_PROCESS)):
            call(desk, process, "echo.say")
        await desk.wait(process, *handles)
        desk.ask(process, "events.close", handles[0])
        call(desk, process, "echo.say")


@in_loop
async def test_a_storm_of_one_user_runs_some_at_once_and_delays_no_other() -> None:
    echo = Echo()
    async with office(echo) as desk:
        several = [desk.spawn() for _ in range(TOOL_CALLS_PER_USER // TOOL_CALLS_PER_PROCESS)]
        for process in several:
            for _ in range(TOOL_CALLS_PER_PROCESS):
                call(desk, process, "echo.hold")
        with pytest.raises(LimitExceeded, match=str(TOOL_CALLS_PER_USER)):
            call(desk, desk.spawn(), "echo.say")
        await desk.settle()
        assert echo.begun == TOOL_CALLS_AT_ONCE_PER_USER
        other = desk.spawn("bob")
        handle = call(desk, other, "echo.say")
        assert await desk.wait(other, handle, timeout_ns=10**9) == [handle]
        for process in several:
            process.kill()
        await desk.settle()
        assert (echo.begun, echo.cancelled) == (TOOL_CALLS_AT_ONCE_PER_USER + 1, TOOL_CALLS_AT_ONCE_PER_USER)


@in_loop
async def test_answers_that_are_held_are_bounded() -> None:
    async with office() as desk:
        process, second, body = desk.spawn(), desk.spawn(), "x" * 1024
        url = "https://api.example.org"
        held = [request(desk, process, url, body) for _ in range(TOOL_BYTES_PER_USER // HTTP_BODY_BYTES)]
        await desk.wait(process, *held)
        late = request(desk, second, url, body)
        await desk.wait(second, late)
        with pytest.raises(LimitExceeded, match=str(TOOL_BYTES_PER_USER)):
            desk.ask(second, "tools.take-response", late)
        desk.ask(process, "events.close", held[0])
        again = request(desk, second, url, body)
        await desk.wait(second, again)
        assert desk.ask(second, "tools.take-response", again).size == HTTP_BODY_BYTES


# --- what the kernel learns ---

@in_loop
async def test_the_time_of_a_tool_is_learnt_whether_the_program_names_it_or_not() -> None:
    echo = Echo()
    async with office(echo) as desk:
        process = desk.spawn()
        for _ in range(3):
            handle = call(desk, process, "echo.hold")
            echo.go.clear()
            asyncio.get_running_loop().call_later(0.001, echo.go.set)
            await desk.wait(process, handle)
        assert (desk.engine.waits.times.mean("ada", "echo.hold") or 0) > 0.0005
        assert desk.engine.waits.times.mean("bob", "echo.hold") is None
