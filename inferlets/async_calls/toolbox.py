"""What the model may call: functions of the program, HTTP, tools of the operator; all of them asynchronous.

    tools = Toolbox()

    @tools.add(seconds=0.2)                      # how long it usually takes: the kernel and the executor act on it
    async def find_hotel(guest: str) -> str:
        '''The hotel of a guest.'''
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from typing import TypeVar

from cadenza.tools import TOOL_ERRORS

from .cml import Code, Malformed

Function = TypeVar("Function", bound=Callable[..., object])
UNKNOWN = "error: unknown function"
SMOOTHING = 0.3        # weight of the last time in what is expected of the next


@dataclass
class Tool:
    """A function by its name. `seconds`: what it is expected to take; None while nothing is known. `parameters`: their
    names, if the function itself does not say."""

    name: str
    function: Callable[..., object]
    seconds: float | None = None
    parameters: tuple[str, ...] | None = None

    @property
    def declared(self) -> str:
        """`find_hotel(guest, nights)`."""
        known = inspect.signature(self.function).parameters if self.parameters is None else self.parameters
        return f"{self.name}({', '.join(known)})"

    def took(self, seconds: float) -> None:
        """Learns from a call that has ended."""
        self.seconds = seconds if self.seconds is None else self.seconds + SMOOTHING * (seconds - self.seconds)


class Toolbox:
    """Tools by name."""

    def __init__(self) -> None:
        self._tools: dict[str, Tool] = {}

    def add(self, *, seconds: float | None = None, name: str = "") -> Callable[[Function], Function]:
        """Offers a function, plain or async, under its own name or another; a decorator."""
        def added(function: Function) -> Function:
            self.put(Tool(name or function.__name__, function, seconds))
            return function
        return added

    def put(self, tool: Tool) -> None:
        self._tools[tool.name] = tool

    def __iter__(self) -> Iterator[Tool]:
        return iter(self._tools.values())

    def get(self, name: str) -> Tool | None:
        return self._tools.get(name)

    @property
    def declared(self) -> str:
        """All of them, for the system's message."""
        return ", ".join(tool.declared for tool in self._tools.values())

    def of(self, code: str) -> Tool | None:
        """The tool that this code calls; None when there is none, or it is no call."""
        try:
            return self.get(Code.parse(code).name)
        except Malformed:
            return None

    async def run(self, code: str) -> str:
        """What the call returns, as text. `error: …` when it can't be called, or raises."""
        try:
            call = Code.parse(code)
            tool = self.get(call.name)
            if tool is None:
                return UNKNOWN
            answer = tool.function(*call.arguments, **dict(call.named))
            return written(await answer if isinstance(answer, Awaitable) else answer)
        except (Malformed, *TOOL_ERRORS) as error:
            return f"error: {error}"


def written(answer: object) -> str:
    return answer if isinstance(answer, str) else json.dumps(answer, ensure_ascii=False)
