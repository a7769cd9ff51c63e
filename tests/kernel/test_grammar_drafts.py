"""Drafts verified under a grammar: whatever is drafted, what is said is what plain decoding says under it, and the
grammar stands where the tokens end."""

from __future__ import annotations

import asyncio
from random import Random

import numpy as np
import pytest

from cadenza.kernel.sampler import Sampler
from cadenza.kernel.verification import Verdict, pruned
from cadenza.kernel.virtual_clock import simulate
from cadenza.kvfs.errors import Busy, Invalid, LimitExceeded
from cadenza.kvfs.file import File
from tests.kernel.test_engine import NONE
from tests.kernel.test_grammar_runs import STOP, TOKENS, LateHouse, Told, begun
from tests.kernel.test_guided_runs import int32, packed
from tests.kernel.test_memory import STEP_SECONDS, House
from tests.kernel.test_verification import Tree, tree
from tests.kernel.toy_device import VOCABULARY, allowed_from, next_token


def truth(grammar, masked, seen: list[int], drawn: bool, most: int) -> list[int]:  # type: ignore[no-untyped-def]
    """What plain decoding says."""
    ahead, said = grammar.fork(), list[int]()
    while len(said) < most:
        allowed = np.unpackbits(ahead.mask, count=VOCABULARY, bitorder="little").astype(bool) & masked
        if not allowed.any():
            break
        offset = len(seen) + len(said) - 1
        said.append(allowed_from(next_token([*seen, *said], offset if drawn else 0), allowed))
        ahead.advance(said[-1:])
    return said


class Drafting(Told):
    """A program that has drafts verified, many of them right, decodes between them, and closes some too early."""

    accepted = closed = 0

    async def live(self) -> None:
        finish = await self.decode(self.prompt, self.chosen.randint(1, 3))
        while finish == "running" and len(self.tokens) < 40:
            said = truth(self.grammar, self.masked, [*self.prompt, *self.tokens], self.sampler.temperature > 0, 8)
            if not said:
                break                                        # the last run ended where the grammar does
            if self.chosen.random() < 0.15:
                finish = await self.decode(self.tokens[-1:], self.chosen.randint(1, 3))
                continue
            draft = verify(self.house, self, self.file, self.tokens[-1],
                           tree(self.chosen, said, self.chosen.randrange(12), VOCABULARY), mask=packed(self.masked))
            with pytest.raises(Busy):
                self.grammar.fork()
            while not draft.ready and self.chosen.random() < 0.9:
                await asyncio.sleep(STEP_SECONDS * self.chosen.random())
            if not draft.ready:
                draft.close()
                self.closed += 1
                continue
            verdict = draft.take()
            self.tokens += verdict.tokens
            self.accepted += verdict.accepted
            finish = verdict.finish
        self.check()
        self.process.kill()

    async def decode(self, inputs: list[int], most: int) -> str:
        run = self.house.inference.decode(
            self.process, self.file, [], int32(*inputs), NONE, sampler=self.sampler, mask=packed(self.masked),
            max_tokens=most, stop_tokens=frozenset(), stop_sequences=(), deliver_every=most, grammar=self.grammar)
        while not run.over:
            await asyncio.sleep(STEP_SECONDS)
        self.take(run)
        return "running" if run.take().finish == "length" else "ended"


def verify(house: House, told: Told, file: File, token: int, draft: Tree, mask=None):  # type: ignore[no-untyped-def]
    return house.inference.verify(told.process, file, [], int32(token, *draft[0]), draft[1], sampler=told.sampler,
                                  mask=mask, grammar=told.grammar)


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("seed", range(6))
def test_a_draft_says_what_decoding_says(seed: int, late: bool) -> None:
    async def test() -> None:
        options = {"pages": 45, "host_pages": 16, "step_tokens": 8 + seed % 3 * 28}
        house = LateHouse(**options) if late else House("ours", **options)
        programs = [Drafting(house, 100 * seed + number, float(number % 2)) for number in range(8)]
        await asyncio.gather(*(program.live() for program in programs))
        house.check_empty()
        assert sum(program.accepted for program in programs) > 20
        assert sum(program.closed for program in programs) > 0
    simulate(test())


class Small(Told):
    """One grammar, where everything is known."""

    def __init__(self, house: House, kind: str, text: str) -> None:
        super().__init__(house, 0, 0.0)
        self.grammar, self.sampler = begun(kind, text), Sampler()

    async def verified(self, token: int, draft: Tree, **more) -> Verdict:  # type: ignore[no-untyped-def]
        asked = verify(self.house, self, self.file, token, draft, **more)
        while not asked.ready:
            await asyncio.sleep(STEP_SECONDS)
        return asked.take()


def test_what_the_grammar_does_not_allow_has_no_row_and_its_end_can_only_be_last() -> None:
    async def test() -> None:
        house = House("ours", pages=60)
        small = Small(house, "regex", "abcd")
        verdict = await small.verified(1, ([*b"axbbcd", STOP, STOP], [0, 0, 1, 2, 3, 5, 6, 0]))
        assert verdict == Verdict([*b"abcd", STOP], 4, 5, "stop-token")
        assert small.file.tokens().tolist() == [1, *b"abcd"]
        assert (small.grammar.tokens, small.grammar.ended) == (5, True)
        with pytest.raises(Invalid, match="has ended"):
            await small.verified(STOP, ([], []))
        no_stop = np.ones(VOCABULARY, bool)
        no_stop[STOP] = False
        small.grammar.roll_back(3)
        small.file.truncate(2)
        assert await small.verified(ord("b"), ([*b"cd"], [0, 1]), mask=packed(no_stop)) == Verdict(
            [*b"cd"], 1, 2, "grammar-end")
        no_b = np.array([b"b" not in token for token in TOKENS])
        stuck = Small(house, "regex", "ab")
        assert (await stuck.verified(1, ([], []), mask=packed(no_b)))[3] == "running"
        with pytest.raises(Invalid, match="hide"):
            verify(house, stuck, stuck.file, ord("a"), ([], []), mask=packed(no_b))
        stuck.grammar.fork()
        small.process.kill()
        stuck.process.kill()
        house.check_empty()
    simulate(test())


def test_what_was_refused_has_not_moved_the_grammar() -> None:
    async def test() -> None:
        house = House("ours", pages=60)
        small = Small(house, "regex", "[a-z]{9}")
        other = verify(house, Small(house, "regex", "a"), small.file, 1, ([], []))
        with pytest.raises(Busy):
            verify(house, small, small.file, 1, ([ord("a")], [0]))
        small.grammar.advance([ord("q")])
        other.close()
        with pytest.raises(LimitExceeded):
            verify(house, small, small.file, 1, ([ord("a")] * 1000, [0] * 1000))
        asked = verify(house, small, small.file, 1, ([ord("a")], [0]))
        asked.close()
        assert (small.grammar.tokens, len(small.file)) == (1, 0)
        small.grammar.roll_back(1)
    simulate(test())


def test_a_pruned_tree_is_one() -> None:
    source, mask = Random(1), np.zeros(1, np.uint8)
    for _ in range(50):
        parents = [source.randrange(number) for number in range(1, 12)]
        masks: list = [mask, *(None for _ in parents)]
        for number, parent in enumerate(parents, 1):
            masks[number] = mask if masks[parent] is not None and source.random() < 0.7 else None
        kept, fewer, left = pruned(parents, masks)
        assert left == [mask] * len(kept)
        assert len(fewer) == len(kept) - 1
        assert [kept[each] for each in fewer] == [parents[number - 1] for number in kept[1:]]
