"""Tools: `echo.say` answers its arguments, `echo.fail` fails; a host answers what was sent to it."""

from base64 import b64encode
from dataclasses import dataclass

from wit_world.imports.types import refuse
from wit_world.toy import toy


@dataclass
class Tool:
    name: str
    description: str
    input_schema: str


@dataclass
class ToolResult:
    text: str
    failed: bool
    cut: bool


@dataclass
class Header:
    name: str
    value: str


@dataclass
class HttpRequest:
    method: str
    url: str
    headers: list[Header]
    body: str
    timeout_ns: int | None


@dataclass
class HttpResponse:
    status: int
    headers: list[Header]
    text: str
    size: int
    cut: bool


def catalog() -> list[Tool]:
    return [Tool("echo.say", "Says it again.", '{"type": "object"}')]


def call(name: str, arguments: str, timeout_ns: int | None) -> int:
    if not name.startswith("echo."):
        refuse("DENIED", f"tool {name!r} is not in the manifest")
    ready_at = float("inf") if name == "echo.never" else toy.now + 5
    return toy.handle(ToolResult(f"{arguments} {timeout_ns}", name == "echo.fail", False), ready_at)


def take_result(call: int) -> ToolResult:
    result: ToolResult = toy.get(toy.held, call)
    return result


def request(request: HttpRequest) -> int:
    return toy.handle(request, toy.now + 5)


def take_response(call: int) -> HttpResponse:
    sent: HttpRequest = toy.get(toy.held, call)
    said = f"{sent.method} {sent.url} {sent.body}"
    headers = [*sent.headers, Header("set-cookie", "a"), Header("set-cookie", "b")]
    return HttpResponse(200, headers, said, len(said), False)


def take_bytes(call: int, first: int, count: int) -> str:
    return b64encode(take_response(call).text.encode()[first : first + count]).decode()
