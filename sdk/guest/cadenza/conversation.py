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
"""Stands in the template for a text that holds such names, and for an answer that is known by its tokens. Private-use
characters: no template writes them."""


class Conversation:
    """Messages in order. `answer` is what the assistant has said of a turn that is still open, else None."""

    def __init__(self, *, resumed: bool = False) -> None:
        """`resumed`: it goes on after messages that are not here."""
        self.answer: str | None = None
        self._parts: list[str | list[int]] = []    # of the answer: text, or tokens as they are
        self._before = BEFORE if resumed else ()
        self._messages: list[Message] = []
        self._guarded: dict[int, str | list[int]] = {}

    def __bool__(self) -> bool:
        return bool(self._messages)

    def copy(self) -> Conversation:
        other = Conversation(resumed=bool(self._before))
        other.answer, other._parts = self.answer, self._parts[:]
        other._messages, other._guarded = self._messages[:], dict(self._guarded)
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

    def begin_answer(self) -> None:
        self.answer, self._parts = "", []

    def say(self, content: str | list[int]) -> None:
        """The assistant goes on; tokens are kept as they are."""
        text = content if isinstance(content, str) else model.detokenize(content, special=True)
        self.answer = (self.answer or "") + text
        self._parts.append(content)

    def end_answer(self) -> None:
        """What the assistant has said becomes a message."""
        if self.answer and any(isinstance(part, list) for part in self._parts):
            self._guarded[len(self._messages)] = [
                token
                for part in self._parts
                for token in (model.tokenize(part, True) if isinstance(part, str) else part)
            ]
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
        return [token for piece in self._pieces(text) for token in piece]

    def _pieces(self, text: str) -> Iterator[list[int]]:
        """The rendering cut at what is guarded: special tokens count in what the template has written alone."""
        if not self._guarded:
            yield model.tokenize(text, True)
            return
        for number, piece in enumerate(re.split("\ue000(\\d+)\ue001", text)):
            if number % 2:
                guarded = self._guarded[int(piece)]
                yield model.tokenize(guarded, False) if isinstance(guarded, str) else guarded
            elif piece:
                yield model.tokenize(piece, True)
