"""Grammars: what the model may say, as a JSON schema, a regular expression, rules or a list of choices.

    person = await Grammar.json_schema({"type": "object", "properties": {"name": {"type": "string"}}}).compile()
    text = await context.generate(grammar=person.fork()).text()

A compiled grammar stands somewhere, first at its beginning; what is generated under it moves it. So fork it, to begin
anew each time.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Self

from wit_world.imports import grammar as kernel

from .errors import checked
from .events import Handle

_compile = checked(kernel.compile)
_take = checked(kernel.take_grammar)
_fork = checked(kernel.fork)
_advance = checked(kernel.advance)
_roll_back = checked(kernel.roll_back)
_status = checked(kernel.status)
_forced = checked(kernel.forced)


class Grammar:
    """Begins to be compiled at once; `await grammar.compile()`, or use it once it is."""

    __slots__ = ("handle",)

    def __init__(self, handle: Handle) -> None:
        """Made by the class methods. These raise Invalid and LimitExceeded."""
        self.handle = handle

    @classmethod
    def json_schema(cls, schema: Mapping[str, Any] | str) -> Self:
        """JSON of that schema, written as `json.dumps` does. What the schema does not close is open: name
        `additionalProperties`, `maxItems` and `maxLength` where an answer should end soon."""
        text = schema if isinstance(schema, str) else json.dumps(dict(schema), ensure_ascii=False)
        return cls(Handle(_compile(kernel.GrammarSource_JsonSchema(text))))

    @classmethod
    def regex(cls, pattern: str) -> Self:
        """The whole text matches. No look-around, no back-references."""
        return cls(Handle(_compile(kernel.GrammarSource_Regex(pattern))))

    @classmethod
    def lark(cls, rules: str) -> Self:
        """Rules as the parser generator Lark writes them; the text is a `start`. `<|name|>` is a special token."""
        return cls(Handle(_compile(kernel.GrammarSource_Lark(rules))))

    @classmethod
    def choices(cls, choices: Sequence[str]) -> Self:
        """One of these texts."""
        return cls(Handle(_compile(kernel.GrammarSource_Choices(list(choices)))))

    async def compile(self) -> Self:
        """Returns itself when it is compiled. Raises Invalid, which says what is wrong with it, LimitExceeded."""
        await self.handle
        _take(self.handle.number)
        return self

    def fork(self) -> Grammar:
        """Another that stands where this one does. Raises Busy while something is generated under it."""
        return Grammar(Handle(_fork(self.handle.number)))

    def advance(self, tokens: Sequence[int]) -> None:
        """Moves it by tokens that something else than a generation under it has said, all or none. Raises Invalid."""
        _advance(self.handle.number, list(tokens))

    def roll_back(self, tokens: int) -> None:
        """Takes back so many tokens. Raises Invalid when there were fewer."""
        _roll_back(self.handle.number, tokens)

    def forced(self) -> list[int]:
        """The tokens that must come next; none where there is a choice."""
        return list(_forced(self.handle.number))

    @property
    def tokens(self) -> int:
        """How many it has had."""
        return _status(self.handle.number).tokens

    @property
    def may_end(self) -> bool:
        """Whether what was said is all of a text."""
        return _status(self.handle.number).may_end

    @property
    def ended(self) -> bool:
        """Whether a stop token came: nothing follows."""
        return _status(self.handle.number).ended

    def close(self) -> None:
        """Gives it back. Idempotent; a generation under it goes on."""
        self.handle.close()

    def __del__(self) -> None:
        if hasattr(self, "handle"):
            self.close()
