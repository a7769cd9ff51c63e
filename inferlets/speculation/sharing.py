"""A table that the programs of one user have in common, without a place where it lies.

Each has its own, publishes what it hears as it goes, and learns what others publish; a newcomer asks through a queue,
and one of those who are there tells it what was said of late. Topics and queues are the user's own: nobody else's
programs hear of them, or can. Nothing is waited for: a message that comes late, twice or never changes what is
drafted, and not what is said. So there is nothing to lock, to keep alive, or to clean up. For times when no program
runs, let one that does nothing but `await Shared().keep()` run detached.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Sequence

from cadenza import channel, process
from cadenza.errors import LimitExceeded

from .cacheback import Cacheback
from .stream import Stream
from .table import Table

NAME = "cacheback"
TOLD = 32                  # tokens published at once
REMEMBERED = 4096          # tokens that a newcomer is told


class Shared(Cacheback):
    """A Cacheback that shares its dynamic table with every `Shared` of that name of this user. Close it, or end."""

    def __init__(self, frozen: Table | None = None, *, name: str = NAME) -> None:
        super().__init__(frozen)
        self._name, self._pid = name, process.pid()
        self._said: list[int] = []                                # not published yet
        self._recent: deque[int] = deque(maxlen=REMEMBERED)
        self._news = channel.subscribe(name)
        self._answers = channel.subscribe(f"{name}.{self._pid}")
        self._asked = channel.pull(name)
        with contextlib.suppress(LimitExceeded):                  # enough others ask
            channel.push(name, str(self._pid))

    def drafter(self) -> Stream:
        self.exchange()
        return super().drafter()

    def heard(self, tokens: Sequence[int]) -> None:
        self._recent.extend(tokens)
        self._said += tokens
        if len(self._said) >= TOLD:
            self.exchange()

    def exchange(self) -> None:
        """Tells what was heard here, and learns what was elsewhere. Never blocks."""
        if self._said:
            channel.publish(self._name, written(self._pid, self._said))
            self._said = []
        for source in (self._news, self._answers):
            while (text := source.receive_nowait()) is not None:
                self._hear(text)
        while (asker := self._asked.receive_nowait()) is not None:
            self._answer(asker)

    async def keep(self) -> None:
        """Does nothing but share, until it is ended."""
        async def hears() -> None:
            async for text in self._news:
                self._hear(text)

        async def answers() -> None:
            async for asker in self._asked:
                self._answer(asker)

        await asyncio.gather(hears(), answers())

    def close(self) -> None:
        """Shares no more. Idempotent."""
        for source in (self._news, self._answers, self._asked):
            source.close()

    def _hear(self, text: str) -> None:
        pid, *tokens = map(int, text.split())
        if pid != self._pid:
            self.table.learn(tokens)
            self._recent.extend(tokens)

    def _answer(self, asker: str) -> None:
        if asker != str(self._pid) and self._recent:
            channel.publish(f"{self._name}.{asker}", written(self._pid, self._recent))


def written(pid: int, tokens: Sequence[int]) -> str:
    return " ".join(map(str, (pid, *tokens)))
