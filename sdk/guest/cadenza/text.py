"""Tokens into text, one at a time: never half a character, never the beginning of a stop string."""

from __future__ import annotations

import codecs
from collections.abc import Sequence

from . import model

# What is known of the vocabulary so far: the text of tokens that are whole characters, the bytes of the others.
_texts: dict[int, str] = {}
_bytes: dict[int, bytes] = {}


def _learn(token: int) -> None:
    """Asks the kernel once for what a token stands for."""
    written = model.vocabulary(token, 1)[0] or model.detokenize([token], special=True).encode()
    try:
        _texts[token] = written.decode()
    except UnicodeDecodeError:
        _bytes[token] = written


class TextStream:
    """Feed it tokens in order; it gives the text that is certain.

    `stopped` is set by the first of the stop strings, which is not given, nor is what comes after it.
    """

    def __init__(self, stops: Sequence[str] = ()) -> None:
        if "" in stops:
            raise ValueError("a stop string is empty: it would stop before the first token")
        self.stopped = False
        self._stops = tuple(stops)
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._half = False          # the decoder holds the first bytes of a character
        self._held = ""             # the end of the text so far, that begins a stop string

    @property
    def half(self) -> bool:
        """Whether the last token ended within a character."""
        return self._half

    def feed(self, token: int) -> str:
        """The text that this token makes certain; often its own, maybe none."""
        text = _texts.get(token)
        if text is None or self._half:
            text = self._decoded(token)
        return self._searched(text) if self._stops else text

    def end(self) -> str:
        """The text that was held back, now that nothing follows."""
        if self.stopped:
            return ""
        text = self._decoder.decode(b"", True) if self._half else ""
        self._half = False
        text = self._searched(text) if self._stops else text
        held, self._held = self._held, ""
        return text + held

    def _decoded(self, token: int) -> str:
        if token not in _texts and token not in _bytes:
            _learn(token)
        written = _bytes[token] if token in _bytes else _texts[token].encode()
        text = self._decoder.decode(written)
        self._half = bool(self._decoder.getstate()[0])
        return text

    def _searched(self, text: str) -> str:
        text = self._held + text
        found = [at for stop in self._stops if (at := text.find(stop)) >= 0]
        if found:
            self.stopped = True
            self._held = ""
            return text[: min(found)]
        certain = len(text) - max(begun(stop, text) for stop in self._stops)
        self._held = text[certain:]
        return text[:certain]


def begun(stop: str, text: str) -> int:
    """How many characters at the end of `text` are the first of `stop`, short of all."""
    for count in range(min(len(stop) - 1, len(text)), 0, -1):
        if text.endswith(stop[:count]):
            return count
    return 0
