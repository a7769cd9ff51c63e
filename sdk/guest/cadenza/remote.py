"""Tools that the operator has registered, as far as this program's manifest names them.

    # /// cadenza
    # tools = ["weather.forecast"]
    # ///
    answer = await cadenza.remote.call("weather.forecast", city="Oslo")

What a tool itself calls an error comes as `Result.failed`, and is for the model to read; that it could not be called is
an exception.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from wit_world.imports import tools as kernel

from .errors import checked
from .events import Handle

_call = checked(kernel.call)
_take_result = checked(kernel.take_result)


@dataclass(frozen=True)
class Description:
    """A tool that may be called. `schema`: JSON Schema of its arguments."""

    name: str
    description: str
    schema: Mapping[str, Any]


@dataclass(frozen=True)
class Result:
    """`failed`: the tool says that it is an error; `cut`: there was more text."""

    text: str
    failed: bool
    cut: bool

    def __str__(self) -> str:
        return f"error: {self.text}" if self.failed else self.text


def catalog() -> list[Description]:
    """The tools that this program may call, as far as their servers are up. Never blocks."""
    return [Description(tool.name, tool.description, json.loads(tool.input_schema)) for tool in kernel.catalog()]


async def call(name: str, /, **arguments: Any) -> Result:
    """Calls `SERVER.TOOL`. Cancelled, the call is given up.

    Raises Denied (not granted), NotFound (the server has no such tool), Closed (the server is down, or went away),
    Cancelled (ten minutes are over), Invalid, LimitExceeded.
    """
    return await call_with(name, arguments)


async def call_with(
    name: str, arguments: Mapping[str, Any], *, timeout: float | None = None, expected: float | None = None
) -> Result:
    """The same, with a timeout, and with how long it will take if that is known; both in seconds."""
    handle = submit(name, arguments, timeout)
    try:
        if expected is not None:
            handle.expect(name, expected)
        await handle
        return take(handle)
    finally:
        handle.close()


def submit(name: str, arguments: Mapping[str, Any], timeout: float | None = None) -> Handle:
    """The bare call: a handle that is ready when there is a result. Never blocks. Close it."""
    return Handle(_call(name, json.dumps(dict(arguments)), None if timeout is None else int(timeout * 1e9)))


def take(handle: Handle) -> Result:
    """What a ready handle of `submit` holds. Never blocks. Raises the error that the call ended with."""
    result = _take_result(handle.number)
    return Result(result.text, result.failed, result.cut)
