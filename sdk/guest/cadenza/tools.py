"""Tools that a program offers to the model: ordinary functions, called in the program's own code.

    tools = Tools()

    @tools.add
    def weather(city: str) -> str:
        '''What the weather is in a city.'''

    call = tools.find(answer)            # in what the model said
    if call is not None:
        context.tool(await tools.run(call))
"""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

from .errors import Error

Function = TypeVar("Function", bound=Callable[..., object])

TAGGED = re.compile(r"<tool_call>\s*(\{.*?\})\s*</tool_call>", re.DOTALL)
MARKED = re.compile(r"<\|call\|>\s*(\w+)\((.*)\)\s*", re.DOTALL)
BARE = re.compile(r"\s*(?:<\|python_tag\|>)?\s*(\{.*\})\s*", re.DOTALL)

TOOL_ERRORS = (Error, ArithmeticError, LookupError, OSError, RuntimeError, TypeError, ValueError)
"""What a tool may raise for the model to hear of it; anything else is a fault of the program."""


@dataclass(frozen=True)
class Call:
    """A tool's name and what it is called with: one text, or arguments by name."""

    name: str
    text: str = ""
    named: Mapping[str, object] = field(default_factory=dict)

    @classmethod
    def parse(cls, said: str) -> Call | None:
        """The call in what the model said; None when it is none.

        Understands `<|call|>NAME(TEXT)`, `<tool_call>{"name": …, "arguments": …}</tool_call>` and a bare JSON object
        with `name` and `arguments` or `parameters`.
        """
        marked = MARKED.search(said)
        if marked:
            return cls(marked[1], marked[2])
        written = TAGGED.search(said) or BARE.fullmatch(said)
        return cls._from_json(written[1]) if written else None

    @classmethod
    def _from_json(cls, text: str) -> Call | None:
        try:
            value = json.loads(text)
        except ValueError:
            return None
        if not isinstance(value, dict) or not isinstance(value.get("name"), str):
            return None
        named = value.get("arguments", value.get("parameters", {}))
        return cls(value["name"], named=named) if isinstance(named, dict) else cls(value["name"], str(named))


class Tools:
    """Functions by name. What a tool raises is told to the model as `error: …`, and the program goes on."""

    def __init__(self) -> None:
        self._functions: dict[str, Callable[..., object]] = {}

    def add(self, function: Function) -> Function:
        """Offers a function, plain or async, under its own name; a decorator."""
        self._functions[function.__name__] = function
        return function

    def __contains__(self, name: str) -> bool:
        return name in self._functions

    def describe(self) -> str:
        """One line a tool, for a system message: name, arguments, and the first line of its docstring."""
        return "\n".join(described(name, function) for name, function in self._functions.items())

    def find(self, said: str) -> Call | None:
        """The call in what the model said; None when it calls nothing."""
        return Call.parse(said)

    async def run(self, call: Call) -> str:
        """The tool's answer as text; `error: …` when there is no such tool or it raised an exception."""
        function = self._functions.get(call.name)
        if function is None:
            return f"error: there is no tool {call.name}"
        try:
            answer = function(**call.named) if call.named else function(*([call.text] if call.text else []))
            if inspect.isawaitable(answer):
                answer = await answer
        except TOOL_ERRORS as error:
            return f"error: {error}"
        return answer if isinstance(answer, str) else json.dumps(answer)


def described(name: str, function: Callable[..., object]) -> str:
    """`weather(city): What the weather is in a city.`"""
    first_line = (inspect.getdoc(function) or "").partition("\n")[0]
    return f"{name}({', '.join(inspect.signature(function).parameters)}): {first_line}"
