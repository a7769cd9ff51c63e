"""The messages of a chat, and the tokens that the model's chat template makes of them."""

from __future__ import annotations

import re
from collections.abc import Iterator

from . import model
from .errors import Unsupported
from .model import Message

UNTRUSTED = ("user", "tool")
"""Roles whose text comes from outside: names of special tokens in it stay text."""

BEFORE: tuple[Message, ...] = ({"role": "user", "content": "."}, {"role": "assistant", "content": "."})
"""Stands for the messages before a chat that is resumed: what the template writes after them is what counts."""

MARK = "\ue000{}\ue001"
"""Stands in the template for a text that holds such names. Private-use characters: no template writes them."""


class Conversation:
    """Messages in order. `answer` is what the assistant has said of a turn that is still open, else None."""

    def __init__(self, *, resumed: bool = False) -> None:
        """`resumed`: it goes on after messages that are not here."""
        self.answer: str | None = None
        self._before = BEFORE if resumed else ()
        self._messages: list[Message] = []
        self._guarded: dict[int, str] = {}

    def __bool__(self) -> bool:
        return bool(self._messages)

    def copy(self) -> Conversation:
        other = Conversation(resumed=bool(self._before))
        other.answer, other._messages, other._guarded = self.answer, self._messages[:], dict(self._guarded)
        return other

    def messages(self) -> list[Message]:
        """All of them, an open answer too."""
        opened: list[Message] = [{"role": "assistant", "content": self.answer}] if self.answer else []
        return self._messages + opened

    def add(self, role: str, text: str, **more: object) -> None:
        """Ends an open answer and adds a message."""
        self.end_answer()
        if role in UNTRUSTED and model.tokenize(text, True) != model.tokenize(text, False):
            self._guarded[len(self._messages)] = text
        self._messages.append({"role": role, "content": text, **more})

    def end_answer(self) -> None:
        """What the assistant has said becomes a message."""
        self._messages, self.answer = self.messages(), None

    def tokens(self, generate: bool) -> list[int]:
        """The whole chat as the model expects it; with `generate`, up to where the assistant speaks."""
        messages = [
            {**message, "content": MARK.format(index)} if index in self._guarded else message
            for index, message in enumerate(self._messages)
        ]
        text = model.chat([*self._before, *messages], generate)
        if self._before:
            begun = model.chat(list(self._before), False)
            if not text.startswith(begun):
                raise Unsupported("this model's chat template rewrites earlier messages: a chat cannot be resumed")
            text = text[len(begun):]
        return [token for piece, special in self._pieces(text) for token in model.tokenize(piece, special)]

    def _pieces(self, text: str) -> Iterator[tuple[str, bool]]:
        """The rendering cut at the guarded texts; each piece with whether its special tokens count."""
        if not self._guarded:
            yield text, True
            return
        for number, piece in enumerate(re.split("\ue000(\\d+)\ue001", text)):
            if number % 2:
                yield self._guarded[int(piece)], False
            elif piece:
                yield piece, True
