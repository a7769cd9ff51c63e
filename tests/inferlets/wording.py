"""A toy model's words: a token is a word, a space or a special name; and chat templates of several shapes."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from cadenza.inferlets.prompt_modules import Layout, Plan, Schema, Template, parse_schema

SPECIAL = ("<begin>", "<end>", "<system>", "<user>", "<assistant>")
Messages = Sequence[Mapping[str, str]]


class Wording:
    """Tokens are numbers in the order of their first use; `text` says them again."""

    def __init__(self) -> None:
        self._words: list[str] = list(SPECIAL)

    def tokenize(self, text: str, special: bool) -> list[int]:
        names = "|".join(map(re.escape, SPECIAL)) + "|" if special else ""
        return [self._number(word) for word in re.findall(rf"{names}\w+|\s|.", text)]

    def _number(self, word: str) -> int:
        if word not in self._words:
            self._words.append(word)
        return self._words.index(word)

    def text(self, tokens: Sequence[int]) -> str:
        return "".join(self._words[token] for token in tokens)

    def template(self) -> Template:
        return Template(self.tokenize, plain_chat, begin=0)

    def layout(self, schema: Schema | str) -> Layout:
        return Layout(parse_schema(schema) if isinstance(schema, str) else schema, self.template())

    def written(self, plan: Plan) -> str:
        """All that a plan puts together, by position; a gap is ~."""
        stands = dict(zip(plan.positions, plan.tokens, strict=True))
        for view in plan.views:
            for position, token in zip(view.positions, view.tokens, strict=True):
                assert position not in stands, "two tokens at one position"
                stands[position] = token
        assert [stands[at] for at in sorted(stands)] == [*plan.ordered_tokens]
        return "".join(self._words[stands[at]] if at in stands else "~" for at in range(max(stands) + 1))


def plain_chat(messages: Messages, generate: bool) -> str:
    turns = "".join(f"<{message['role']}>{message['content']}<end>" for message in messages)
    return "<begin>" + turns + ("<assistant>" if generate else "")


def prefacing_chat(messages: Messages, generate: bool) -> str:
    """Writes a system turn of its own when there is none, and no begin token."""
    preface = "" if messages[0]["role"] == "system" else "<system>Help.<end>"
    return preface + plain_chat(messages, generate).removeprefix("<begin>")


def closing_once_chat(messages: Messages, generate: bool) -> str:
    """Closes the last turn otherwise than the ones before it."""
    return plain_chat(messages, generate) + ("" if generate else "<end>")


def silent_chat(messages: Messages, generate: bool) -> str:
    """Leaves out system turns."""
    return plain_chat([message for message in messages if message["role"] != "system"], generate)
