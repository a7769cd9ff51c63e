"""`Source`: a grammar as a program writes it, in one of four ways."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

from llguidance import LLMatcher

from cadenza.kernel.limits import GRAMMAR_BYTES
from cadenza.kvfs.errors import Invalid, LimitExceeded

# JSON as most programs write it. A schema has the last word, in "x-guidance".
JSON_STYLE: Final[Any] = {"item_separator": ", ", "key_separator": ": ", "whitespace_flexible": False}


class Source(NamedTuple):
    """`kind`: json-schema, regex, lark or choices, as in WIT's `grammar-source`."""

    kind: str
    text: str

    @classmethod
    def of(cls, kind: str, value: str | Sequence[str]) -> Source:
        """Raises Invalid, LimitExceeded."""
        source = cls(kind, value if isinstance(value, str) else json.dumps(list(value), ensure_ascii=False))
        size = len(source.text.encode(errors="replace"))
        if size > GRAMMAR_BYTES:
            raise LimitExceeded(f"the grammar has {size} bytes; at most {GRAMMAR_BYTES} (GRAMMAR_BYTES)",
                                "grammar_bytes")
        if not isinstance(value, str) and not (value and all(value)):
            raise Invalid("choices are one text at least, none of them empty", "source")
        return source

    @property
    def digest(self) -> bytes:
        return hashlib.sha256(f"{self.kind}\0{self.text}".encode(errors="replace")).digest()

    def grammar(self) -> str:
        """As llguidance takes it. Raises Invalid."""
        if self.kind == "json-schema":
            return _of_json_schema(self.text)
        if self.kind == "regex":
            return LLMatcher.grammar_from_regex(self.text)
        if self.kind == "lark":
            return LLMatcher.grammar_from_lark(self.text)
        choices = [json.dumps(choice, ensure_ascii=False) for choice in json.loads(self.text)]
        return LLMatcher.grammar_from_lark("start: " + " | ".join(choices))


def _of_json_schema(text: str) -> str:
    try:
        schema = json.loads(text)
    except (ValueError, RecursionError) as fault:
        raise Invalid(f"the schema is not JSON: {fault}", "source") from None
    if not isinstance(schema, dict):
        raise Invalid("a JSON schema is an object", "source")
    return LLMatcher.grammar_from_json_schema(text, defaults=JSON_STYLE)
