"""Words of the command line, and what a program gets of them."""

from __future__ import annotations

from typing import Any

import pytest

from cadenza.kvfs.errors import Invalid
from cadenza.server.arguments import parse_arguments, parse_object


@pytest.mark.parametrize(
    ("words", "arguments"),
    [
        ("", {}),
        ("--question why?", {"question": "why?"}),
        ("--question=why=not", {"question": "why=not"}),
        ("--empty=", {"empty": ""}),
        ("--loud", {"loud": True}),
        ("--loud --quiet", {"loud": True, "quiet": True}),
        ("--max-tokens 5", {"max_tokens": 5}),
        ("--temperature -0.5", {"temperature": -0.5}),
        ("--on true --off=false --none null", {"on": True, "off": False, "none": None}),
        ("--stops [1,2]", {"stops": [1, 2]}),
        ("--tool {\"a\":1}", {"tool": {"a": 1}}),
        ("--text \"5\"", {"text": "5"}),
        ("--broken [1", {"broken": "[1"}),
        ("--date 2024-01-02", {"date": "2024-01-02"}),
        ("--nan NaN", {"nan": "NaN"}),
        ("--tag a --tag b --tag c", {"tag": ["a", "b", "c"]}),
        ("--list [1] --list [2]", {"list": [[1], [2]]}),
        ("one 2", {"arguments": ["one", 2]}),
        ("--name x -- --raw 5", {"name": "x", "arguments": ["--raw", "5"]}),
        ("a -- b", {"arguments": ["a", "b"]}),
        ("--flag -x", {"flag": "-x"}),
    ],
)
def test_words(words: str, arguments: dict[str, Any]) -> None:
    assert parse_arguments(words.split()) == arguments


@pytest.mark.parametrize("word", ["--=x", "--1", "---x", "--a b"])
def test_options_without_a_name(word: str) -> None:
    with pytest.raises(Invalid):
        parse_arguments([word])


def test_objects() -> None:
    assert parse_object('{"a": [1]}') == {"a": [1]}
    for wrong in ("[1]", "{", "5", "[" * 100_000):
        with pytest.raises(Invalid):
            parse_object(wrong)
