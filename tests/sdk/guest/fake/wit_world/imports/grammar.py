"""Grammars that match any text."""

from __future__ import annotations

from dataclasses import make_dataclass
from typing import Any

from wit_world.toy import toy

GrammarSource_JsonSchema = make_dataclass("GrammarSource_JsonSchema", ["value"])
GrammarSource_Regex = make_dataclass("GrammarSource_Regex", ["value"])
GrammarSource_Lark = make_dataclass("GrammarSource_Lark", ["value"])
GrammarSource_Choices = make_dataclass("GrammarSource_Choices", ["value"])
GrammarStatus = make_dataclass("GrammarStatus", ["tokens", "may_end", "ended"])


def compile(source: Any) -> int:
    return toy.handle({"source": source, "said": []}, toy.now + 1)


def take_grammar(grammar: int) -> None:
    toy.get(toy.held, grammar)


def fork(grammar: int) -> int:
    held = toy.get(toy.held, grammar)
    return toy.handle({**held, "said": held["said"][:]}, toy.now)


def advance(grammar: int, tokens: list[int]) -> None:
    toy.get(toy.held, grammar)["said"] += tokens


def roll_back(grammar: int, tokens: int) -> None:
    del toy.get(toy.held, grammar)["said"][-tokens:]


def status(grammar: int) -> Any:
    return GrammarStatus(len(toy.get(toy.held, grammar)["said"]), True, False)


def forced(grammar: int) -> list[int]:
    toy.get(toy.held, grammar)
    return []
