"""The model's words: its tokenizer, and its chat template cut into turns.

A template writes a conversation as a whole. A module has to have the same tokens whatever is around it, so the template
is asked for small conversations in which marks stand for what is said, and what it writes around a mark is the opening
and the closing of that turn:

    chat([user ①])                           <begin> <user> ① <end>          first("user") and closing("user")
    chat([user ①, assistant ②, user ③])      … ② <end> <user> ③ <end>        later("user"): between ② and ③, without
                                                                              the closing of the assistant's turn

The opening of a first turn holds whatever the template puts before everything, such as a system turn of its own. What
is said is tokenized apart from what is around it; names of special tokens in it stay text.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cache, cached_property

from .elements import Speaker
from .errors import UnfitTemplate

MARKS = "\ue000", "\ue001", "\ue002"
"""Stand for what is said. Private-use characters: no template writes them."""

BEFORE: dict[Speaker, tuple[Speaker, ...]] = {
    "system": ("user", "assistant"),
    "user": ("user", "assistant"),
    "assistant": ("user",),
}
"""What comes before a later turn of each speaker, in an order that every template takes."""

Tokens = tuple[int, ...]


class Template:
    """`tokenize(text, special)` and `chat(messages, generate)` are the model's; `begin` is its begin token."""

    def __init__(
        self,
        tokenize: Callable[[str, bool], Sequence[int]],
        chat: Callable[[Sequence[Mapping[str, str]], bool], str],
        begin: int | None = None,
    ) -> None:
        self._tokenize = tokenize
        self._chat = chat
        self._begin = begin
        self.first = cache(self._first)
        self.later = cache(self._later)
        self.closing = cache(self._closing)

    def text(self, text: str) -> Tokens:
        """The tokens of something said or written."""
        return tuple(self._tokenize(text, False))

    def begin(self, turns: bool) -> Tokens:
        """What everything begins with: the begin token, unless the template does without it in a chat."""
        if self._begin is None:
            return ()
        return (self._begin,) if not turns or self._written_first("user")[:1] == (self._begin,) else ()

    @cached_property
    def answer(self) -> Tokens:
        """The opening of the assistant's answer."""
        asked = self._render(("user",))
        return self._special(self._behind(self._chat(self._messages(("user",)), True), asked, "the answer"))

    def _first(self, speaker: Speaker) -> Tokens:
        """The opening of a turn that is the first, without the begin token."""
        written = self._written_first(speaker)
        return written[1:] if self._begin is not None and written[:1] == (self._begin,) else written

    def _later(self, speaker: Speaker) -> Tokens:
        """The opening of a turn after others."""
        speakers = (*BEFORE[speaker], speaker)
        between = self._around(speakers)[-2]
        return self._special(self._behind(between, self._around(speakers[:-1])[-1], f"a turn of {speaker}"))

    def _closing(self, speaker: Speaker) -> Tokens:
        """What ends a turn."""
        speakers: tuple[Speaker, ...] = ("user", speaker) if speaker == "assistant" else (speaker,)
        return self._special(self._around(speakers)[-1])

    def _written_first(self, speaker: Speaker) -> Tokens:
        return self._special(self._around((speaker,))[0])

    def _special(self, text: str) -> Tokens:
        return tuple(self._tokenize(text, True)) if text else ()

    def _around(self, speakers: Sequence[Speaker]) -> list[str]:
        """What the template writes before, between and after what is said. Raises UnfitTemplate."""
        rest, pieces = self._render(speakers), []
        for mark in MARKS[: len(speakers)]:
            piece, found, rest = rest.partition(mark)
            if not found:
                raise UnfitTemplate(f"the model's chat template does not write {' and '.join(speakers)} in order")
            pieces.append(piece)
        return [*pieces, rest]

    def _render(self, speakers: Sequence[Speaker]) -> str:
        return self._chat(self._messages(speakers), False)

    def _messages(self, speakers: Sequence[Speaker]) -> list[dict[str, str]]:
        return [{"role": speaker, "content": mark} for speaker, mark in zip(speakers, MARKS, strict=False)]

    def _behind(self, longer: str, shorter: str, what: str) -> str:
        if not longer.startswith(shorter):
            raise UnfitTemplate(f"the model's chat template writes a turn otherwise when {what} follows it: cut it "
                                "by hand, as text of the schema, with no turns")
        return longer[len(shorter) :]
