"""Words of the command line as a program's arguments, a JSON object.

    --name value    {"name": value}         --name=value     the same
    --flag          {"flag": true}          when another option follows, or nothing
    --max-tokens 5  {"max_tokens": 5}       dashes in a name become underscores
    --file a b      {"file": "a", "arguments": ["b"]}
    --tag a --tag b {"tag": ["a", "b"]}
    word            {"arguments": ["word"]} so is everything after `--`, as text

A value that is a JSON number, true, false, null, or begins with [ { or " is taken as JSON if it is; any other, and
what follows `--`, is text. Write --flag=true before a word that is no value of it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any

from cadenza.kvfs.errors import Invalid

REST = "arguments"
OPTION = re.compile(r"--([A-Za-z_][A-Za-z0-9_.-]*)(?:=(.*))?", re.DOTALL)
JSON_LITERAL = re.compile(r"-?\d.*|true|false|null|[\[{\"].*", re.DOTALL)


def parse_arguments(words: Sequence[str]) -> dict[str, Any]:
    """The object. Raises Invalid for an option without a name."""
    found: dict[str, Any] = {}
    left = list(words)
    while left:
        word = left.pop(0)
        if word == "--":
            found.setdefault(REST, []).extend(left)
            break
        if not word.startswith("--"):
            found.setdefault(REST, []).append(parse_value(word))
            continue
        name, value = _option(word)
        if value is None and left and not left[0].startswith("--"):
            value = left.pop(0)
        _add(found, name, True if value is None else parse_value(value))
    return found


def parse_value(text: str) -> Any:
    """A JSON literal's value, or the text itself."""
    if not JSON_LITERAL.fullmatch(text):
        return text
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def parse_object(text: str) -> dict[str, Any]:
    """A JSON object. Raises Invalid."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise Invalid(f"--arguments is not JSON: {error}", "arguments") from error
    if not isinstance(value, dict):
        raise Invalid(f"--arguments must be a JSON object, not {type(value).__name__}", "arguments")
    return value


def _option(word: str) -> tuple[str, str | None]:
    match = OPTION.fullmatch(word)
    if match is None:
        raise Invalid(f"{word!r} is no option of a program: they look like --name, --name value or --name=value")
    return match[1].replace("-", "_"), match[2]


def _add(found: dict[str, Any], name: str, value: Any) -> None:
    """A name that comes again makes a list of its values."""
    if name not in found:
        found[name] = value
    elif name in _repeated(found):
        found[name].append(value)
    else:
        found[name] = _Repeated([found[name], value])


class _Repeated(list[Any]):
    """The values of a name that came more than once; a list that was given as JSON is one value."""


def _repeated(found: dict[str, Any]) -> set[str]:
    return {name for name, value in found.items() if isinstance(value, _Repeated)}
