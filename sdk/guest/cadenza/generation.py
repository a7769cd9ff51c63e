"""An answer on its way: text as it comes from the model, and its end."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from typing import Any

from .decoding import Decoding, Ending
from .errors import Error
from .grammar import Grammar
from .inference import Run
from .text import TextStream


class Generation(Decoding):
    """An async iterator of pieces of text; one piece is what one more token made certain.

    It begins at once, whether it is iterated or not. Leaving the loop early stops it, and what was not consumed is
    undone: the context is as if the model had never said it. A stop token becomes part of the context and ends the
    assistant's turn.
    """

    keeps_stop_token = True

    def __init__(
        self,
        run: Run,
        context_tokens: list[int],
        settle: Callable[[Any], None],
        stops: Sequence[str],
        stop_tokens: frozenset[int],
        grammar: Grammar | None = None,
    ) -> None:
        super().__init__(run, context_tokens, settle, stop_tokens, grammar)
        self.said = ""                             # the text of what was sampled, a stop token or stop string apart
        self._stream = TextStream(stops)
        self._rest = ""                            # what only the end made certain

    @property
    def answer(self) -> str | list[int]:
        return self.said

    async def text(self) -> str:
        """All the text that is still to come, when it has ended."""
        return "".join([piece async for piece in self])

    def __aiter__(self) -> Pieces:
        return Pieces(self)

    async def next(self) -> str:
        """The next piece; "" when there is none any more."""
        while self.finish == "running":
            token = await self.token()
            if token is None or self.finish != "running":
                return self._rest
            piece = self._stream.feed(token)
            self.said += piece
            if self._stream.stopped:
                self._end("stop-string")
            if piece:
                return piece
        return ""

    def _end(self, finish: Ending) -> None:
        self._rest = self._stream.end()
        self.said += self._rest
        super()._end(finish)


class Pieces:
    """One loop over a generation. Dropped before the end, it stops it."""

    __slots__ = ("_generation",)

    def __init__(self, generation: Generation) -> None:
        self._generation = generation

    def __aiter__(self) -> Pieces:
        return self

    async def __anext__(self) -> str:
        piece = await self._generation.next()
        if not piece:
            raise StopAsyncIteration
        return piece

    def __del__(self) -> None:
        with contextlib.suppress(Error):
            self._generation.stop()
