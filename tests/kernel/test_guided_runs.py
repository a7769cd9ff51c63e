"""Runs with states and interjections, however far ahead steps are submitted: every token is the one that its state's
mask gives after all before it, and what programs put in stands once, in order, where the run was open."""

from __future__ import annotations

import asyncio
import random

import numpy as np
import pytest

from cadenza.kernel.guide import Guide, State
from cadenza.kernel.inference import Inference
from cadenza.kernel.runs import Run
from cadenza.kernel.sampler import Sampler
from cadenza.kernel.virtual_clock import simulate
from cadenza.kvfs.errors import Closed, Invalid, LimitExceeded, TooLong
from tests.kernel.test_engine import NONE
from tests.kernel.test_memory import STEP_SECONDS, House
from tests.kernel.toy_device import VOCABULARY, allowed_from, next_token


def int32(*numbers: int) -> np.ndarray:
    return np.array(numbers, np.int32)


def packed(allowed: np.ndarray) -> np.ndarray:
    return np.packbits(allowed, bitorder="little")


class Automaton:
    """Random states over the toy's vocabulary; some without a mask."""

    def __init__(self, chosen: random.Random) -> None:
        count = chosen.randint(2, 4)
        self.allowed = [np.ones(VOCABULARY, bool) if chosen.random() < 0.3 else
                        np.random.default_rng(chosen.randrange(999)).random(VOCABULARY) < chosen.choice([0.1, 0.9])
                        for _ in range(count)]
        self.moves = [{chosen.randrange(VOCABULARY): chosen.randrange(count) for _ in range(200)} for _ in range(count)]
        self.otherwise = [None, *(chosen.choice([None, chosen.randrange(count)]) for _ in range(count - 1))]
        self.open = [True, *(chosen.random() < 0.5 for _ in range(count - 1))]

    def states(self, inference: Inference) -> list[State]:
        masks = [None if allowed.all() else packed(allowed) for allowed in self.allowed]
        return [State(*each) for each in zip(masks, self.moves, self.otherwise, self.open, strict=True)]


class Told:
    """A run of a program that puts in what it likes, when it likes."""

    def __init__(self, house: House, seed: int, temperature: float) -> None:
        self.house, self.chosen = house, random.Random(seed)
        self.automaton, self.sampler = Automaton(self.chosen), Sampler(temperature, seed=seed)
        self.process = house.spawn()
        self.file = house.file(self.process)
        self.prompt = [self.chosen.randrange(VOCABULARY) for _ in range(self.chosen.randint(1, 20))]
        self.tokens: list[int] = []
        self.put_in: list[tuple[int, int]] = []
        self.wanted_in: list[list[int]] = []

    async def live(self) -> None:
        states = self.automaton.states(self.house.inference)
        run = self.house.inference.decode(
            self.process, self.file, [], int32(*self.prompt), NONE, sampler=self.sampler, mask=None,
            max_tokens=self.chosen.randint(5, 40), stop_tokens=frozenset(), stop_sequences=(), deliver_every=1,
            states=states)
        stops_after = self.chosen.choice([10**6, self.chosen.randint(0, 20)])
        while not run.over and len(self.tokens) < stops_after:
            await asyncio.sleep(STEP_SECONDS * self.chosen.random())
            if run.ready and self.chosen.random() < 0.7:
                self.take(run)
            if self.chosen.random() < 0.15 and not run.over and len(self.wanted_in) < 8:
                words = [self.chosen.randrange(VOCABULARY) for _ in range(self.chosen.randint(1, 7))]
                self.house.inference.interject(run, int32(*words))
                self.wanted_in.append(words)
        if run.over:
            self.take(run)
        run.stop()
        while not run.over:
            await asyncio.sleep(STEP_SECONDS)
        self.check()
        self.process.kill()

    def take(self, run: Run) -> None:
        progress = run.take()
        self.put_in += [(each.first + len(self.tokens), each.count) for each in progress.interjected]
        self.tokens += progress.tokens

    def check(self) -> None:
        held = self.prompt + self.tokens[:-1] if self.tokens else []
        assert self.file.tokens().tolist() == held
        starts = dict(self.put_in)
        there = [self.tokens[first : first + count] for first, count in self.put_in]
        assert there == self.wanted_in[: len(there)], "in the order in which they were put in, each once"
        at, state = 0, 0
        while at < len(self.tokens):
            if at in starts:
                assert at > 0
                assert self.automaton.open[state]
                at += starts[at]
                continue
            seen = [*self.prompt, *self.tokens[:at]]
            drawn = next_token(seen, len(seen) - 1 if self.sampler.temperature else 0)
            assert self.tokens[at] == allowed_from(drawn, self.allowed(state, seen))
            after = self.automaton.moves[state].get(self.tokens[at], self.automaton.otherwise[state])
            state = state if after is None else after
            at += 1

    def allowed(self, state: int, seen: list[int]) -> np.ndarray:
        return self.automaton.allowed[state]


@pytest.mark.parametrize("run_ahead", [1, 2, 3, 5])
@pytest.mark.parametrize("seed", range(12))
def test_what_is_put_in_stands_once_where_the_run_was_open(seed: int, run_ahead: int) -> None:
    async def test() -> int:
        house = House("ours", pages=60, host_pages=64, run_ahead=run_ahead, step_tokens=8 + seed % 3 * 28)
        programs = [Told(house, 100 * seed + number, float(number % 2)) for number in range(6)]
        await asyncio.gather(*(program.live() for program in programs))
        house.check_empty()
        return sum(len(program.put_in) for program in programs)
    assert simulate(test()) > 0


def begun(house: House, states: list[State] = [], most: int = 60) -> Run:  # noqa: B006 - never changed
    process = house.spawn()
    return house.inference.decode(
        process, house.file(process), [], int32(1, 2, 3), NONE, sampler=Sampler(), mask=None, max_tokens=most,
        stop_tokens=frozenset(), stop_sequences=(), deliver_every=1, states=states)


def test_all_that_waits_goes_in_together_in_one_pass_with_the_last_token() -> None:
    async def test() -> None:
        house = House("ours", pages=60)
        run = begun(house)
        while run.taken < 3:
            await asyncio.sleep(STEP_SECONDS / 2)
            run.take()
        steps = len(house.device.batches)
        house.inference.interject(run, int32(7, 8))
        house.inference.interject(run, int32(9))
        taken = run.taken
        while True:
            await asyncio.sleep(STEP_SECONDS / 2)
            progress = run.take()
            if progress.interjected:
                break
            taken += len(progress.tokens)
        await asyncio.sleep(3 * STEP_SECONDS)
        fed = [batch.tokens.tolist() for batch in house.device.batches[steps:]]
        together = [tokens for tokens in fed if tokens[1:] == [7, 8, 9]]
        assert [len(tokens) for tokens in together] == [4]
        assert taken <= 3 + 2, "at most the steps that were under way came first"
        run.stop()
    simulate(test())


def test_a_closed_state_keeps_what_is_put_in_waiting_until_its_end() -> None:
    async def test() -> None:
        house = House("ours", pages=60, run_ahead=5)
        said = [next_token([1, 2, 3])]
        for _ in range(30):
            said.append(next_token([1, 2, 3, *said]))
        closing, opening = said[2], said[9]
        run = begun(house, [State(None, {closing: 1}, None, True), State(None, {opening: 0}, None, False)])
        while run.taken < 4:
            await asyncio.sleep(STEP_SECONDS / 2)
            run.take()
        house.inference.interject(run, int32(5, 5))
        progress, tokens = None, list(said[: run.taken])
        while progress is None or not progress.interjected:
            await asyncio.sleep(STEP_SECONDS / 2)
            progress = run.take()
            tokens += progress.tokens
        assert tokens[:12] == [*said[:10], 5, 5], "right behind the token that opened it, whatever had been asked ahead"
        run.stop()
    simulate(test())


def test_what_cannot_be_put_in_is_refused() -> None:
    async def test() -> None:
        house = House("ours", pages=300)
        run = begun(house, most=4)
        with pytest.raises(Invalid, match="one token"):
            house.inference.interject(run, NONE)
        with pytest.raises(Invalid, match="vocabulary"):
            house.inference.interject(run, int32(VOCABULARY))
        with pytest.raises(TooLong, match="room for 509"):
            house.inference.interject(run, np.ones(510, np.int32))
        with pytest.raises(LimitExceeded, match="8192"):
            house.inference.interject(run, np.ones(8193, np.int32))
        while not run.over:
            await asyncio.sleep(STEP_SECONDS)
        with pytest.raises(Closed, match="ended"):
            house.inference.interject(run, int32(1))
        assert len(run.take().tokens) == 4
    simulate(test())


def test_states_are_checked() -> None:
    none, all_but_one = np.zeros(2, np.uint8), np.array([255, 254], np.uint8)
    none[0] = 1
    with pytest.raises(Invalid, match="state 2; the run has 1"):
        Guide([State(None, {3: 2}, None, True)])
    with pytest.raises(Invalid, match="hide every token"):
        Guide([State(none, {}, None, True)], np.array([254, 255], np.uint8))
    guide = Guide([State(none, {0: 1}, None, True), State(all_but_one, {}, None, False)])
    assert [guide.allows(token) for token in (0, 1)] == [True, False]
    guide.follow(0)
    assert [guide.allows(token) for token in (0, 1, 8)] == [True, True, False]
    assert not guide.open
    assert guide.loosest is not None
    assert guide.loosest.tolist() == [255, 254]
