"""`Grammars`: what programs ask for is compiled off the event loop, and kept for the next who asks.

    compile ──▶ kept? ── yes ──▶ ready at once
                  │ no
                  └──▶ its user's turn ──▶ everybody's turn ──▶ the child tries ──▶ a thread compiles ──▶ ready

A user's grammars are compiled one after the other, so one who asks for many delays another by one at the most. What is
kept is a user's own: nobody learns from the clock what others have asked for.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from typing import TYPE_CHECKING

from cadenza.kernel.grammar.matcher import Beginning, Matcher
from cadenza.kernel.grammar.trial import Trial, plain
from cadenza.kernel.grammar.vocabulary import Vocabulary, compiled
from cadenza.kernel.limits import GRAMMARS, GRAMMARS_BYTES, GRAMMARS_WAITING_PER_USER
from cadenza.kvfs.errors import CadenzaError, LimitExceeded

if TYPE_CHECKING:
    from llguidance import LLTokenizer

    from cadenza.kernel.grammar.source import Source

Key = tuple[str, bytes]        # user, digest


class Grammars:
    """`vocabulary`: asked for once, by a worker thread, for the first grammar; may raise Unsupported. `size`: tokens of
    the device's vocabulary."""

    def __init__(self, vocabulary: Callable[[], Vocabulary], size: int) -> None:
        self._make_vocabulary, self._size = vocabulary, size
        self._learnt: tuple[Vocabulary, LLTokenizer, Trial] | None = None
        self._kept: OrderedDict[Key, Beginning] = OrderedDict()      # the one not used for longest is first
        self._kept_bytes = 0
        self._turn = asyncio.Lock()
        self._turns: dict[str, asyncio.Lock] = {}                    # of users who wait for one
        self._waiting: dict[str, int] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._compiled = self._refused = 0

    def compile(self, owner: str, source: Source) -> Matcher:
        """At once; ready when it is compiled, or failed: Invalid, LimitExceeded, Unsupported. Raises LimitExceeded."""
        matcher = Matcher()
        kept = self._get((owner, source.digest))
        if kept is not None:
            matcher.begin(kept)
            return matcher
        if self._waiting.get(owner, 0) >= GRAMMARS_WAITING_PER_USER:
            raise LimitExceeded(f"{GRAMMARS_WAITING_PER_USER} grammars of this user wait to be compiled, the limit; "
                                "wait for some first", "grammars_waiting_per_user")
        self._waiting[owner] = self._waiting.get(owner, 0) + 1
        task = asyncio.get_running_loop().create_task(self._in_turn(owner, source, matcher))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return matcher

    async def _in_turn(self, owner: str, source: Source, matcher: Matcher) -> None:
        try:
            async with self._turns.setdefault(owner, asyncio.Lock()), self._turn:
                matcher.begin(self._get((owner, source.digest)) or await self._compile((owner, source.digest), source))
        except CadenzaError as error:
            self._refused += 1
            matcher.fail(error)
        finally:
            self._waiting[owner] -= 1
            if not self._waiting[owner]:
                del self._waiting[owner], self._turns[owner]

    async def _compile(self, key: Key, source: Source) -> Beginning:
        if self._learnt is None:
            self._learnt = await asyncio.to_thread(self._learn)
        vocabulary, tokenizer, trial = self._learnt
        grammar = source.grammar()
        held_bytes = await trial.compile(grammar)
        made = await asyncio.to_thread(compiled, tokenizer, grammar)
        if made.is_error():
            raise LimitExceeded(f"the grammar could not be compiled: {plain(made.get_error())}", "source")
        beginning = Beginning(made, len(vocabulary), self._size, vocabulary.stops, max(held_bytes, 16 * len(grammar)))
        self._keep(key, beginning)
        self._compiled += 1
        return beginning

    def _learn(self) -> tuple[Vocabulary, LLTokenizer, Trial]:
        vocabulary = self._make_vocabulary()
        return vocabulary, vocabulary.tokenizer(), Trial(vocabulary)

    def _get(self, key: Key) -> Beginning | None:
        if key in self._kept:
            self._kept.move_to_end(key)
        return self._kept.get(key)

    def _keep(self, key: Key, beginning: Beginning) -> None:
        self._kept[key] = beginning
        self._kept_bytes += beginning.held_bytes
        while len(self._kept) > GRAMMARS or self._kept_bytes > GRAMMARS_BYTES:
            self._kept_bytes -= self._kept.popitem(last=False)[1].held_bytes

    async def close(self) -> None:
        """Ends the child, and what waits for it."""
        for task in list(self._tasks):
            task.cancel()
        if self._learnt is not None:
            await self._learnt[2].close()

    def statistics(self) -> dict[str, float]:
        return {"kept": len(self._kept), "kept_bytes": self._kept_bytes, "waiting": sum(self._waiting.values()),
                "compiled": self._compiled, "refused": self._refused}
