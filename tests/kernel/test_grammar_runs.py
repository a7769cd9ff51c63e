"""Runs under a grammar, however far ahead steps are submitted: every token is the one that its own mask gives, and the
grammar stands where the tokens end that the program has taken."""

from __future__ import annotations

import asyncio
import json
import random
from collections import deque
from dataclasses import replace

import numpy as np
import pytest
from jsonschema import Draft202012Validator

from benchmarks.schemas import schemas
from cadenza.kernel.device.batch import Batch
from cadenza.kernel.device.local_link import LocalLink
from cadenza.kernel.grammar.matcher import Beginning, Matcher
from cadenza.kernel.grammar.source import Source
from cadenza.kernel.grammar.vocabulary import Vocabulary, compiled
from cadenza.kernel.guide import State
from cadenza.kernel.passes import Sampler
from cadenza.kernel.runs import Run
from cadenza.kernel.virtual_clock import simulate
from cadenza.kvfs.errors import Busy, Invalid
from tests.kernel.test_engine import NONE
from tests.kernel.test_guided_runs import int32, packed
from tests.kernel.test_memory import STEP_SECONDS, House
from tests.kernel.toy_device import VOCABULARY, allowed_from, next_token

STOP = 300
PAIRS = [bytes(pair) for pair in np.random.default_rng(7).integers(32, 127, (VOCABULARY - 301, 2)).astype(np.uint8)]
TOKENS = [bytes((byte,)) for byte in range(256)] + [b""] * 44 + [b"<|stop|>", *PAIRS]
WORDS = Vocabulary(TOKENS, frozenset({STOP}), (STOP,))
TOKENIZER = WORDS.tokenizer()


def begun(kind: str, text: str, vocabulary: Vocabulary = WORDS) -> Matcher:
    made = compiled(TOKENIZER, Source.of(kind, text).grammar())
    assert not made.is_error(), made.get_error()
    matcher = Matcher()
    matcher.begin(Beginning(made, len(TOKENS), VOCABULARY, vocabulary.stops))
    return matcher


class LateLink(LocalLink):
    """Computes a step when it is due, and not when it is submitted, so masks may come late."""

    def __init__(self, link: LocalLink) -> None:
        super().__init__(link._device)
        self._batches: deque[Batch] = deque()
        self._owed: deque[bool] = deque()
        self.late = 0

    @property
    def facts(self):  # type: ignore[no-untyped-def]
        return replace(super().facts, late_masks=True)

    def submit(self, batch: Batch) -> None:
        self._batches.append(batch)
        self._owed.append(bool(len(batch.late_masks)))
        loop = asyncio.get_running_loop()
        self._idle_at = max(self._idle_at, loop.time()) + STEP_SECONDS
        loop.call_at(self._idle_at, self._compute)

    def give_masks(self, masks) -> None:  # type: ignore[no-untyped-def]
        assert [index for index, _ in masks] == self._batches[0].late_masks.tolist()
        for index, mask in masks:
            self._batches[0].masks[index] = mask
        self._owed[0] = False
        self.late += len(masks)

    def _compute(self) -> None:
        assert not self._owed.popleft(), "a step is sampled before its masks are there"
        self._deliver(self._device.step(self._batches.popleft()))


class LateHouse(House):
    def __init__(self, **options) -> None:  # type: ignore[no-untyped-def]
        super().__init__("ours", **options)
        self.engine.link = LateLink(self.engine.link)
        self.engine.connect()


GRAMMARS = [("regex", "[a-z]{3,9}( [a-z]{1,4}){0,6}[.!]"), ("regex", "(yes|no|maybe)(, (yes|no|maybe))*"),
            ("lark", 'start: "(" start ")" start | /[0-9]+/'),
            ("json-schema", json.dumps({"type": "array", "items": {"enum": ["ab", 12, None]}, "maxItems": 9}))]


class Told:
    """A program that decodes under a grammar, puts in what it likes, and stops when it likes."""

    def __init__(self, house: House, seed: int, temperature: float) -> None:
        self.house, self.chosen = house, random.Random(seed)
        self.sampler = Sampler(temperature, seed=seed)
        self.process = house.spawn()
        self.file = house.file(self.process)
        self.grammar = begun(*GRAMMARS[seed % len(GRAMMARS)])
        self.reference = self.grammar.fork()
        self.masked = np.ones(VOCABULARY, bool)
        self.masked[[self.chosen.randrange(400, VOCABULARY) for _ in range(50)]] = False
        self.prompt = [self.chosen.randrange(VOCABULARY) for _ in range(self.chosen.randint(1, 20))]
        self.tokens: list[int] = []
        self.put_in: dict[int, int] = {}

    async def live(self) -> None:
        states = [State(None, {}, None, True)] if self.chosen.random() < 0.5 else []
        run = self.house.inference.decode(
            self.process, self.file, [], int32(*self.prompt), NONE, sampler=self.sampler, mask=packed(self.masked),
            max_tokens=self.chosen.randint(5, 40), stop_tokens=frozenset({STOP}), stop_sequences=(), deliver_every=1,
            states=states, grammar=self.grammar)
        stops_after = self.chosen.choice([10**6, self.chosen.randint(0, 20)])
        while not run.over and len(self.tokens) < stops_after:
            await asyncio.sleep(STEP_SECONDS * self.chosen.random())
            if run.ready and self.chosen.random() < 0.7:
                self.take(run)
            if self.chosen.random() < 0.1 and not run.over:
                self.house.inference.interject(run, int32(*[self.chosen.randrange(VOCABULARY) for _ in range(3)]))
        if run.over and self.chosen.random() < 0.8:
            self.take(run)
        run.stop()
        while not run.over:
            await asyncio.sleep(STEP_SECONDS)
        self.check()
        self.process.kill()

    def take(self, run: Run) -> None:
        progress = run.take()
        self.put_in |= {each.first + len(self.tokens): each.count for each in progress.interjected}
        self.tokens += progress.tokens

    def check(self) -> None:
        assert self.file.tokens().tolist() == (self.prompt + self.tokens[:-1] if self.tokens else [])
        at = 0
        while at < len(self.tokens):
            if at in self.put_in:
                at += self.put_in[at]
                continue
            seen = [*self.prompt, *self.tokens[:at]]
            drawn = next_token(seen, len(seen) - 1 if self.sampler.temperature else 0)
            allowed = np.unpackbits(self.reference.mask, count=VOCABULARY, bitorder="little").astype(bool)
            assert self.tokens[at] == allowed_from(drawn, allowed & self.masked)
            self.reference.advance([self.tokens[at]])
            at += 1
        assert self.grammar.tokens == self.reference.tokens
        assert self.grammar.ended == self.reference.ended
        assert self.grammar.mask.tolist() == self.reference.mask.tolist()
        assert self.grammar.fork().may_end == self.reference.may_end


@pytest.mark.parametrize("run_ahead", [1, 2, 3, 5])
@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("seed", range(4))
def test_each_token_is_the_one_that_its_own_mask_gives(seed: int, late: bool, run_ahead: int) -> None:
    async def test() -> None:
        options = {"pages": 45, "host_pages": 16, "run_ahead": run_ahead, "step_tokens": 8 + seed % 3 * 28}
        house = LateHouse(**options) if late else House("ours", **options)
        programs = [Told(house, 100 * seed + number, float(number % 2)) for number in range(8)]
        await asyncio.gather(*(program.live() for program in programs))
        house.check_empty()
        assert sum(len(program.tokens) for program in programs) > 20
        if late and run_ahead > 1:
            assert house.engine.link.late > 20
    simulate(test())


async def said(house: House, matcher: Matcher, most: int = 4000, stops: frozenset[int] = frozenset({STOP}),
               **options) -> tuple[bytes, str]:  # type: ignore[no-untyped-def]
    process = house.spawn()
    run = house.inference.decode(
        process, house.file(process), [], int32(1), NONE, sampler=Sampler(seed=3), mask=options.pop("mask", None),
        max_tokens=most, stop_tokens=stops, stop_sequences=(), deliver_every=most, grammar=matcher, **options)
    while not run.ready:
        await asyncio.sleep(STEP_SECONDS)
    try:
        progress = run.take()
        if progress.finish == "running":
            run.take()
    finally:
        run.close()
        process.kill()
    return b"".join(TOKENS[token] for token in progress.tokens if token != STOP), progress.finish


def test_every_output_under_a_random_schema_is_valid() -> None:
    async def test() -> None:
        house = LateHouse(pages=130)
        for schema in schemas(100, seed=1):
            text, finish = await said(house, begun("json-schema", json.dumps(schema)), 500)
            assert finish == "stop-token", (schema, text)
            Draft202012Validator(schema, format_checker=Draft202012Validator.FORMAT_CHECKER).validate(json.loads(text))
        house.check_empty()
    simulate(test())


def test_how_a_run_ends() -> None:
    async def test() -> None:
        house = LateHouse(pages=60)
        assert await said(house, begun("regex", "abc")) == (b"abc", "stop-token")
        assert await said(house, begun("regex", "abc"), stops=frozenset()) == (b"abc", "stop-token"), "the model's own"
        no_stops = Vocabulary(TOKENS, frozenset({STOP}))
        assert await said(house, begun("regex", "abc", no_stops)) == (b"abc", "grammar-end")
        assert await said(house, begun("regex", "a{60}"), 2) == (b"aa", "length")
        no_stop = np.ones(VOCABULARY, bool)
        no_stop[STOP] = False
        assert await said(house, begun("regex", "abc"), mask=packed(no_stop)) == (b"abc", "grammar-end")
        matcher = begun("regex", "abc")
        await said(house, matcher)
        assert matcher.ended
        with pytest.raises(Invalid, match="has ended"):
            await said(house, matcher)
        house.check_empty()
    simulate(test())


def test_where_grammar_and_mask_leave_nothing_the_run_ends_with_an_error() -> None:
    async def test() -> None:
        house = LateHouse(pages=60)
        no_b = np.array([ord("b") not in token for token in TOKENS])
        with pytest.raises(Invalid, match="nothing is left to sample"):
            await said(house, begun("regex", "[a]b"), mask=packed(no_b))
        with pytest.raises(Invalid, match="nothing is left"):
            await said(house, begun("regex", "bb"), mask=packed(no_b))
        closing = [State(packed(~no_b), {}, None, True)]
        with pytest.raises(Invalid, match="nothing is left"):
            await said(house, begun("regex", "b(c|d)"), states=closing)
        house.check_empty()
    simulate(test())


def test_a_run_has_its_grammar_for_itself_and_leaves_it_where_it_ended() -> None:
    async def test() -> None:
        house = LateHouse(pages=60)
        matcher = begun("regex", "[0-9]{30}")
        process = house.spawn()
        run = house.inference.decode(
            process, house.file(process), [], int32(1), NONE, sampler=Sampler(), mask=None, max_tokens=6,
            stop_tokens=frozenset(), stop_sequences=(), deliver_every=1, grammar=matcher)
        for busy in (matcher.fork, matcher.forced, lambda: matcher.roll_back(0), lambda: matcher.advance([48])):
            with pytest.raises(Busy):
                busy()
        with pytest.raises(Busy, match="another run"):
            await said(house, matcher)
        while not run.over:
            await asyncio.sleep(STEP_SECONDS)
        assert matcher.tokens == 6
        matcher.advance([ord("7")])
        run.stop()
        assert matcher.tokens == 7, "what was changed since is not taken back"
        process.kill()
        house.check_empty()
    simulate(test())
