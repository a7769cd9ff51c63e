"""An answer on its way: text as it comes from the model, and its end."""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Callable, Sequence
from typing import Literal

from .errors import Error
from .inference import Finish, Run
from .text import TextStream

Ending = Finish | Literal["stop-string"]


class Generation:
    """An async iterator of pieces of text; one piece is what one more token made certain.

    It begins at once, whether it is iterated or not. Leaving the loop early stops it, and what was not consumed is
    undone: the context is as if the model had never said it. `tokens` are those consumed, `finish` tells the end.
    """

    def __init__(
        self,
        run: Run,
        context_tokens: list[int],
        settle: Callable[[Generation], None],
        stops: Sequence[str],
        stop_tokens: frozenset[int],
    ) -> None:
        self.tokens: list[int] = []
        self.finish: Ending = "running"
        self.said = ""                             # the text of `tokens`, a stop token or stop string apart
        self._run = run
        self._context_tokens = context_tokens      # the context's own list: what is consumed is appended
        self._settle = settle                      # called once, when `finish` is set
        self._stop_tokens = stop_tokens
        self._stream = TextStream(stops)
        self._taken: deque[int] = deque()          # given by the kernel, not consumed

    @property
    def computed_tokens(self) -> int:
        """Tokens of its input that were computed."""
        return self._run.computed_tokens

    @property
    def reused_tokens(self) -> int:
        """Tokens of its input whose states were in the pool already."""
        return self._run.reused_tokens

    async def text(self) -> str:
        """All the text that is still to come, when it has ended."""
        return "".join([piece async for piece in self])

    def __aiter__(self) -> Pieces:
        return Pieces(self)

    async def next(self) -> str:
        """The next piece; "" when there is none any more."""
        while self.finish == "running":
            ending: Ending = "running"
            if self._taken:
                piece, ending = self._consume(self._taken.popleft())
            elif self._run.finish != "running":
                piece, ending = self._stream.end(), self._run.finish
            else:
                piece = ""
                await self._take()
            self.said += piece
            if ending != "running":
                self._end(ending)
            if piece:
                return piece
        return ""

    def stop(self) -> None:
        """Ends it after what was consumed. Idempotent; never blocks."""
        if self.finish == "running":
            self.said += self._stream.end()
            self._end("stopped")

    def __del__(self) -> None:
        with contextlib.suppress(Error):
            self.stop()

    async def _take(self) -> None:
        try:
            self._taken.extend(await self._run.take())
        except BaseException:
            self.stop()
            raise

    def _consume(self, token: int) -> tuple[str, Ending]:
        """One token becomes part of the context; the text it makes certain, and whether it is the last."""
        self.tokens.append(token)
        self._context_tokens.append(token)
        if token in self._stop_tokens and self._run.finish == "stop-token" and not self._taken:
            return self._stream.end(), "stop-token"
        piece = self._stream.feed(token)
        return piece, "stop-string" if self._stream.stopped else "running"

    def _end(self, finish: Ending) -> None:
        self.finish = finish
        self._taken.clear()
        try:
            self._run.stop()
        finally:
            self._settle(self)


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
