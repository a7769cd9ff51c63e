"""A run that speculates: to those who take its tokens, one as any other.

    plain ── tokens one by one, by runs of the kernel's; what would have been drafted is compared with them
      │ a draft pays                                  ▲ none does, or nothing is found
      ▼                                               │
    verified ── a draft a pass: what is accepted, and one more ──┘

A plain run is asked for as many tokens as are wanted, so that nothing is under way past its end: from one to the other
nothing is lost.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Any, Protocol

from cadenza import events, model
from cadenza.errors import Closed, LimitExceeded
from cadenza.inference import Run, Verification
from cadenza.kv import File

from .pace import COMPARED_RATE, Pace
from .tree import Tree

COMPARED = 8               # tokens of plain decoding with which a draft is compared
MOST_UNSEEN = 64           # tokens until the next one, where drafts come to nothing: first COMPARED, then twice as many


class Drafter(Protocol):
    """Guesses what comes next in one generation."""

    def follow(self, tokens: Sequence[int]) -> None:
        """These come next: of the prompt, or said."""

    def learn(self) -> None:
        """Works up what has come; the device is busy meanwhile."""

    def draft(self, size: int) -> Tree:
        """At most `size` tokens that may follow, the likely ones first."""
        ...


class Speculation:
    """What `Context.generate(speculation=…)` takes; a subclass says what drafts. It serves any number of generations.
    `passes`, `drafted` and `accepted` count those verified, and their tokens."""

    def __init__(self, pace: Pace | None = None) -> None:
        self.pace = pace or Pace()
        self.passes = self.drafted = self.accepted = 0

    def drafter(self) -> Drafter:
        raise NotImplementedError

    def __call__(
        self, file: File, tokens: Sequence[int], *, positions: Sequence[int] = (), states: Sequence[Any] = (),
        **options: Any,
    ) -> Run:
        """A run, as `Run(…)`. One with states, or where nothing follows by itself, is plain."""
        if states or (positions and positions[0] != file.status().next_position):
            return Run(file, tokens, positions=positions, states=states, **options)
        return SpeculativeRun(self, file, tokens, positions=positions, **options)


class SpeculativeRun(Run):
    """See `Run`."""

    def __init__(
        self, speculation: Speculation, file: File, tokens: Sequence[int], *, max_tokens: int,
        positions: Sequence[int] = (), stop_tokens: Sequence[int] = (), stop_sequences: Sequence[Sequence[int]] = (),
        deliver_every: int = 1, **options: Any,
    ) -> None:
        self.finish = "running"
        self.interjected = []
        self.computed_tokens = self.reused_tokens = 0
        self._speculation, self._pace = speculation, speculation.pace
        self._file, self._options, self._deliver_every = file, options, deliver_every
        self._most, self._context_tokens = max_tokens, model.facts().context_tokens
        self._stop_tokens, self._stop_sequences = sorted(stop_tokens), [list(each) for each in stop_sequences]
        before = file.status().tokens
        self._base = before + len(tokens)
        self._said: list[int] = []                           # given, and what was put in
        self._sampled = 0                                    # of them
        self._waiting: list[list[int]] = []                  # put in, and not reported
        self._put_in: list[list[int]] = []                   # inputs of the plain run that are to be reported with it
        self._plain: Run | None = None
        self._verified: Verification | None = None
        self._compared: tuple[Tree, int] | None = None       # a draft, and where in `_said` it begins
        self._tick = 0.0                                     # when the plain run was last looked at,
        self._unseen, self._unseen_until = 0, 1              # its tokens since, and how many there are to be
        self._decode(tokens, positions)
        self._drafter = speculation.drafter()
        self._drafter.follow([*file.tokens(0, before), *tokens])
        self._drafter.learn()

    async def take(self) -> list[int]:
        if self.finish != "running":
            return []
        try:
            tokens = await self._next()
        except BaseException:
            self.stop()
            raise
        return tokens

    def interject(self, tokens: Sequence[int]) -> None:
        if self.finish != "running":
            raise Closed("the run has ended: what it was to be told goes into the next one")
        if self._plain is not None:
            with contextlib.suppress(Closed):
                self._plain.interject(tokens)
        self._waiting.append(list(tokens))

    def stop(self) -> None:
        if self.finish == "running":
            self._end("stopped")

    async def _next(self) -> list[int]:
        self.interjected = []
        if self._plain is None:
            begun = events.now()
            tree = self._draft()
            if tree is not None:
                with contextlib.suppress(LimitExceeded):     # there is room for a token, but not for a draft
                    return await self._verify(tree, begun)
            self._put_in, self._tick, self._unseen = self._waiting[:], 0.0, 0
            self._decode([self._said[-1], *(token for tokens in self._put_in for token in tokens)])
        assert self._plain is not None
        return await self._take_plain(self._plain)

    # --- plainly ---

    def _decode(self, tokens: Sequence[int], positions: Sequence[int] = ()) -> None:
        count = min(self._pace.plain_tokens(), self._most - self._sampled)
        self._plain = Run(self._file, tokens, positions=positions, max_tokens=count, stop_tokens=self._stop_tokens,
                          deliver_every=min(self._deliver_every, count), **self._options)

    async def _take_plain(self, run: Run) -> list[int]:
        tokens = await run.take()
        if not self._said:
            self.computed_tokens, self.reused_tokens = run.computed_tokens, run.reused_tokens
        self._unseen += len(tokens)
        tokens = self._with_what_was_put_in(tokens, run.interjected)
        if run.finish != "running":
            self._plain = None
        tokens = self._given(tokens)
        if run.finish not in ("running", "length") and self.finish == "running":
            self._end(run.finish)
        if self.finish == "running" and self._unseen >= self._unseen_until and self._look() and self._plain is not None:
            run.stop()                                       # a draft pays now
            self._plain = None
        return tokens

    def _with_what_was_put_in(self, tokens: list[int], ranges: Sequence[tuple[int, int]]) -> list[int]:
        """Sets `interjected`: what was among the inputs of a plain run comes before what it says."""
        before: list[int] = []
        for each in self._put_in:
            self.interjected.append((len(before), len(each)))
            before += each
        self._put_in = []
        self.interjected += [(first + len(before), count) for first, count in ranges]
        if self.interjected:
            del self._waiting[: len(self.interjected)]
            self._tick = 0.0
        return [*before, *tokens]

    def _look(self) -> bool:
        """Sees how long plain tokens took, and how a draft would have fared; whether the next one pays."""
        now = events.now()
        if self._tick:
            self._pace.decoded(self._unseen, now - self._tick)
        self._tick, self._unseen = now, 0
        self._drafter.learn()
        pays, until = False, COMPARED
        if self._compared is not None:
            tree, first = self._compared
            way = tree.way(self._said[first : first + COMPARED])
            self._pace.drafted(COMPARED, way, COMPARED_RATE)
            pays = len(way) > 1 and self._pace.size() > 0
            until = COMPARED if way else min(2 * self._unseen_until, MOST_UNSEEN)
        self._unseen_until = until
        self._compared = None if pays else (self._drafter.draft(COMPARED), len(self._said))
        return pays

    # --- verified ---

    def _draft(self) -> Tree | None:
        room = min(self._most - self._sampled - 1, self._context_tokens - self._base - len(self._said))
        size = min(self._pace.size(), room)
        if size < 1 or self._waiting:
            return None
        tree = self._drafter.draft(size)
        if not len(tree):
            return None
        self._compared = None
        return tree

    async def _verify(self, tree: Tree, begun: float) -> list[int]:
        self._verified = Verification(self._file, self._said[-1], tree.tokens, tree.parents, **self._options)
        self._drafter.learn()
        verdict = await self._verified.take()
        self._verified = None
        size, speculation = verdict.computed_tokens - 1, self._speculation
        self._pace.drafted(size, tree.way(verdict.tokens[: verdict.accepted]))
        self._pace.passed(size, events.now() - begun)
        speculation.passes += 1
        speculation.drafted += size
        speculation.accepted += verdict.accepted
        tokens = self._given(verdict.tokens)
        if verdict.finish != "running" and self.finish == "running":
            self._end(verdict.finish)
        return tokens

    # --- both ---

    def _given(self, tokens: list[int]) -> list[int]:
        """What is given of them: up to an end, if there is one."""
        told = self.interjected
        put_in = {at for first, count in told for at in range(first, first + count)} if told else ()
        for at, token in enumerate(tokens):
            self._said.append(token)
            if at in put_in:
                continue
            self._sampled += 1
            if token in self._stop_tokens:
                self._end("stop-token")
            elif any(self._said[-len(each):] == each for each in self._stop_sequences):
                self._end("stop-sequence")
            elif self._sampled == self._most:
                self._end("length")
            if self.finish != "running":
                self._take_back(sum(number not in put_in for number in range(at + 1, len(tokens))))
                tokens = tokens[: at + 1]
                break
        self._drafter.follow(tokens)
        return tokens

    def _take_back(self, tokens: int) -> None:
        """Of those that have moved the grammar."""
        if tokens and self._options.get("grammar") is not None:
            self._options["grammar"].roll_back(tokens)

    def _end(self, finish: Any) -> None:
        """What was not given is undone."""
        self.finish = finish
        if self._plain is not None:
            self._plain.stop()
        if self._verified is not None:
            self._verified.handle.close()
        keep = self._base + len(self._said) - 1
        if self._said and not self._file.closed and self._file.status().tokens > keep:
            self._file.truncate(keep)
