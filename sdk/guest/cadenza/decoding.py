"""Tokens on their way from the model into a context, and what the program puts in between them."""

from __future__ import annotations

import contextlib
import itertools
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Literal

from . import model
from .errors import Closed, Error
from .grammar import Grammar
from .inference import Finish, Run

Ending = Finish | Literal["stop-string"]


class Decoding:
    """What the model samples, token by token. It begins at once, whether it is asked for tokens or not.

    `tokens` are those consumed: they are part of the context, with what was put in between. Whatever was not consumed
    when it ends is undone: the context is as if the model had never said it. `finish` tells the end. A stop token does
    not become part of the context: an assistant's turn stays open, and the program may let it go on.
    """

    keeps_stop_token = False

    def __init__(
        self,
        run: Run,
        context_tokens: list[int],
        settle: Callable[[Any], None],
        stop_tokens: frozenset[int],
        grammar: Grammar | None = None,
    ) -> None:
        self.tokens: list[int] = []
        self.finish: Ending = "running"
        self.interjections = 0                     # how many stand in the context
        self._run = run
        self._context_tokens = context_tokens      # the context's own list: what is consumed is appended
        self._settle = settle                      # called once, when `finish` is set
        self._stop_tokens = stop_tokens
        self._grammar = grammar                    # moved by what is sampled; stands where `tokens` end
        self._taken: deque[int] = deque()          # given by the kernel, not consumed
        self._waiting: deque[list[int]] = deque()  # put in by the program, not consumed
        self._put_in: deque[int] = deque()         # where in `tokens` the first of them will begin

    @property
    def computed_tokens(self) -> int:
        """Tokens of its input that were computed."""
        return self._run.computed_tokens

    @property
    def reused_tokens(self) -> int:
        """Tokens of its input whose states were in the pool already."""
        return self._run.reused_tokens

    @property
    def answer(self) -> str | list[int]:
        """What it has added to an assistant's answer: a stop token is no part of that."""
        return self.tokens

    @property
    def waiting(self) -> list[list[int]]:
        """What was put in and does not stand in the context. At the end: what it ended before."""
        return list(self._waiting)

    def interject(self, content: str | Sequence[int], special: bool = False) -> None:
        """Puts a text or tokens in behind what the model says now, as soon as its state is open; several go together.

        `special`: whether names of special tokens in the text become those tokens. What came too late is among
        `waiting` at the end. Never blocks. Raises TooLong, LimitExceeded.
        """
        tokens = model.tokenize(content, special) if isinstance(content, str) else list(content)
        if self._run.finish == "running":
            with contextlib.suppress(Closed):
                self._run.interject(tokens)
        self._waiting.append(tokens)

    async def token(self) -> int | None:
        """The next sampled token that becomes part of the context; None when there is none any more."""
        while self.finish == "running":
            if self._taken:
                return self._consume()
            if self._run.finish != "running":
                self._end(self._run.finish)
            else:
                await self._take()
        return None

    def stop(self) -> None:
        """Ends it after what was consumed. Idempotent; never blocks."""
        if self.finish == "running":
            self._end("stopped")

    def __del__(self) -> None:
        with contextlib.suppress(Error):
            self.stop()

    async def _take(self) -> None:
        come = len(self.tokens) + len(self._taken)
        try:
            self._taken.extend(await self._run.take())
        except BaseException:
            self.stop()
            raise
        if self._run.interjected:
            self._put_in.extend(come + first for first, _ in self._run.interjected)
            self._consume_what_was_put_in()

    def _consume(self) -> int | None:
        """One token becomes part of the context, and what was put in right behind it."""
        token = self._taken.popleft()
        is_stop = token in self._stop_tokens and self._run.finish == "stop-token" and not self._taken
        if is_stop and not self.keeps_stop_token:
            self._end("stop-token")
            return None
        self.tokens.append(token)
        self._context_tokens.append(token)
        if self._put_in:
            self._consume_what_was_put_in()
        if is_stop:
            self._end("stop-token")
        return token

    def _consume_what_was_put_in(self) -> None:
        while self._put_in and self._put_in[0] == len(self.tokens):
            self._put_in.popleft()
            for known in self._waiting.popleft():
                token = self._taken.popleft()
                assert token == known, "the kernel reports what was put in in its order"
                self.tokens.append(token)
                self._context_tokens.append(token)
            self.interjections += 1

    def _end(self, finish: Ending) -> None:
        self.finish = finish
        put_in = sum(map(len, itertools.islice(self._waiting, len(self._put_in))))
        unwanted = len(self._taken) - put_in + (finish == "stop-token" and not self.keeps_stop_token)
        self._taken.clear()
        try:
            self._run.stop()
            if self._grammar is not None and unwanted:
                with contextlib.suppress(Error):       # it was too much work, or is closed
                    self._grammar.roll_back(unwanted)
        finally:
            self._settle(self)
