"""However far ahead steps are submitted: what a program sees and leaves behind is what an unhurried one would.

Random programs decode, interrupt their runs at any moment, sample under a constraint that follows every token, cut and
fork their files. The reference keeps lists of tokens and asks the toy model one token at a time."""

from __future__ import annotations

import asyncio
import random

import numpy as np
import pytest

from cadenza.kernel.process import Process
from cadenza.kernel.sampler import Sampler
from cadenza.kernel.virtual_clock import simulate
from cadenza.kvfs.file import File
from tests.kernel.test_engine import NO_RANGES, NONE, unhurried
from tests.kernel.test_memory import STEP_SECONDS, House
from tests.kernel.toy_device import VOCABULARY, allowed_from, next_token

DEPTHS = (0, 1, 2, 4)                 # steps beyond the one that is computed


def constraint(token: int) -> list[int]:
    """A grammar of a kind: which tokens may follow `token`."""
    return [t for t in range(VOCABULARY) if (t + token) % 7 == 3]


class Program:
    """One file, the tokens that it must hold, and what it does next at random."""

    def __init__(self, house: House, seed: int) -> None:
        self.house, self.chosen = house, random.Random(seed)
        self.process: Process = house.spawn()
        self.file: File = house.file(self.process)
        self.held: list[int] = []                  # what the file must hold
        self.said: list[int] = []                  # what came out, in order

    async def live(self) -> None:
        for _ in range(self.chosen.randint(3, 7)):
            await self.chosen.choice([self.decode, self.interrupt, self.constrained, self.cut, self.fork])()
            assert self.file.tokens().tolist() == self.held
        self.process.kill()

    def words(self) -> list[int]:
        return [self.chosen.randrange(VOCABULARY) for _ in range(self.chosen.randint(1, 6))]

    async def decode(self) -> None:
        """To its end, a length or a stop token."""
        words, most = self.words(), self.chosen.randint(1, 9)
        expected = unhurried([*self.held, *words], most)
        stop = frozenset({self.chosen.choice(expected)} if self.chosen.random() < 0.5 else ())
        expected = unhurried([*self.held, *words], most, stop)
        run = self._run(words, most, stop)
        taken: list[int] = []
        while not run.over or not taken:
            await asyncio.sleep(STEP_SECONDS * self.chosen.random())
            if run.ready:
                taken += run.take().tokens
        taken += run.take().tokens if len(taken) < len(expected) else []
        assert taken == expected
        self.held += words + expected[:-1]
        self.said += taken

    async def interrupt(self) -> None:
        """Stopped with steps under way: what was not taken has never been."""
        words = self.words()
        run = self._run(words, 30, frozenset())
        taken: list[int] = []
        for _ in range(self.chosen.randint(0, 4)):
            await asyncio.sleep(STEP_SECONDS * self.chosen.uniform(0.1, 3))
            if run.ready:
                taken += run.take().tokens
        run.stop()
        while not run.over:
            await asyncio.sleep(STEP_SECONDS)
        assert taken == unhurried([*self.held, *words], len(taken))
        if taken:
            self.held += words + taken[:-1]
        self.said += taken

    async def constrained(self) -> None:
        """The constraint sees each token before the next is drawn."""
        token = self.words()[0]
        for _ in range(self.chosen.randint(1, 4)):
            allowed = constraint(token)
            mask = self.house.inference.mask(np.array(allowed, np.int32), allowed=True)
            work = self.house.inference.forward(
                self.process, self.file, [], np.array([token], np.int32), NONE, visible=NO_RANGES, mask=mask,
                samples=[(0, Sampler())], probes=[])
            while not work.ready:
                await asyncio.sleep(STEP_SECONDS / 3)
            self.held.append(token)
            bits = np.isin(np.arange(VOCABULARY), allowed)
            token = work.take().tokens[0]
            assert token in allowed
            assert token == allowed_from(next_token(self.held), bits)
            self.said.append(token)

    async def cut(self) -> None:
        count = self.chosen.randint(0, len(self.held))
        self.file.truncate(count)
        del self.held[count:]

    async def fork(self) -> None:
        """Goes on with the fork; the file is as it was."""
        before, file = list(self.held), self.file
        self.file = file.fork()
        self.process.files.add(self.file)
        await self.decode()
        assert file.tokens().tolist() == before

    def _run(self, words: list[int], most: int, stop: frozenset[int]):  # type: ignore[no-untyped-def]
        return self.house.inference.decode(
            self.process, self.file, [], np.array(words, np.int32), NONE, sampler=Sampler(), mask=None, max_tokens=most,
            stop_tokens=stop, stop_sequences=(), deliver_every=1)


@pytest.mark.parametrize("depth", DEPTHS)
@pytest.mark.parametrize("seed", range(15))
def test_random_programs_see_and_leave_what_unhurried_ones_do(seed: int, depth: int) -> None:
    async def test() -> list[list[int]]:
        house = House("ours", pages=40, host_pages=64, run_ahead=depth + 1, step_tokens=8 + seed % 3 * 28)
        programs = [Program(house, 100 * seed + number) for number in range(6)]
        await asyncio.gather(*(program.live() for program in programs))
        house.check_empty()
        return [program.said for program in programs]
    simulate(test())
