"""The standard streams of a program: what is printed goes to its log, line by line; there is no input."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable
from typing import NoReturn

CHUNK_CHARACTERS = 1 << 20    # in one call; the kernel takes 4 MiB


class Log(io.TextIOBase):
    """Text for a stream of the log: given to `send` at the end of a line, when it is flushed, when it grows long."""

    def __init__(self, send: Callable[[str], None]) -> None:
        self._send = send
        self._parts: list[str] = []
        self._characters = 0

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return "utf-8"

    def writable(self) -> bool:
        return True

    def write(self, text: str, /) -> int:
        if not isinstance(text, str):
            raise TypeError(f"print writes text, not {type(text).__name__}")
        self._parts.append(text)
        self._characters += len(text)
        if "\n" in text or self._characters >= CHUNK_CHARACTERS:
            self.flush()
        return len(text)

    def flush(self) -> None:
        if not self._parts:
            return
        text = "".join(self._parts)
        self._parts.clear()
        self._characters = 0
        if not text.isascii():
            text = text.encode("utf-8", "replace").decode()     # a lone surrogate cannot cross
        for first in range(0, len(text), CHUNK_CHARACTERS):
            self._send(text[first : first + CHUNK_CHARACTERS])


class NoInput(io.TextIOBase):
    """What `input()` reads from."""

    def readable(self) -> bool:
        return True

    def readline(self, limit: int | None = -1, /) -> NoReturn:
        raise OSError("a program has no standard input: use `await cadenza.receive()` for the client's next message")

    def read(self, size: int | None = -1, /) -> NoReturn:
        self.readline()


def install(output: Callable[[str], None], error: Callable[[str], None]) -> None:
    """Makes these the streams of the interpreter: what is written goes to `output` and `error`."""
    sys.stdin = NoInput()
    sys.stdout = Log(output)
    sys.stderr = Log(error)


def flush() -> None:
    """Sends what is left in both."""
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            stream.flush()
