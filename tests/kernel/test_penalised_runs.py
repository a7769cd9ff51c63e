"""Penalised runs, however far ahead steps are submitted: every token is drawn with the history that stands before it,
whatever was asked in vain, put in, preempted or stopped meanwhile. The toy device checks the
history of every sample."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest

from cadenza.kernel.sampler import Bias, Past, Penalties, Sampler
from cadenza.kernel.virtual_clock import simulate
from tests.kernel.test_engine import NO_RANGES, NONE
from tests.kernel.test_guided_runs import Told, int32
from tests.kernel.test_memory import STEP_SECONDS, House

WINDOWS = (0, 1, 7, 40)


class Penalised(Told):
    """The toy never says what is penalised."""

    def __init__(self, house: House, seed: int, temperature: float) -> None:
        super().__init__(house, seed, temperature)
        self.window = WINDOWS[seed % 4]
        self.sampler = self.sampler._replace(penalties=Penalties(window=self.window, presence=1.0))

    def allowed(self, state: int, seen: list[int]) -> np.ndarray:
        allowed = super().allowed(state, seen).copy()
        allowed[seen[-self.window:]] = False
        return allowed


@pytest.mark.parametrize("run_ahead", [1, 2, 3, 5])
@pytest.mark.parametrize("seed", [0, 2, 3])
def test_every_token_is_drawn_with_the_history_before_it(seed: int, run_ahead: int) -> None:
    async def test() -> tuple[int, int]:
        house = House("ours", pages=30, host_pages=0, run_ahead=run_ahead, step_tokens=8 + seed % 3 * 28)
        programs = [Penalised(house, 100 * seed + number, float(number % 2)) for number in range(9)]
        plain = [Told(house, 100 * seed + number, float(number % 2)) for number in range(3)]
        await asyncio.gather(*(program.live() for program in (*programs, *plain)))
        house.check_empty()
        return sum(len(program.put_in) for program in programs), house.engine.preemptions
    put_in, preemptions = simulate(test())
    assert put_in > 0
    assert preemptions > 0


@pytest.mark.parametrize("run_ahead", [1, 4])
def test_a_run_says_what_its_passes_say_and_tells_its_history_once(run_ahead: int) -> None:
    async def test() -> None:
        house = House("ours", pages=60, run_ahead=run_ahead)
        process = house.spawn()
        sampler = Sampler(penalties=Penalties(window=9, frequency=1.0))
        run = house.inference.decode(
            process, house.file(process), [], int32(1, 2, 3), NONE, sampler=sampler, mask=None, max_tokens=30,
            stop_tokens=frozenset(), stop_sequences=(), deliver_every=30)
        while not run.ready:
            await asyncio.sleep(STEP_SECONDS)
        said = run.take().tokens
        assert [len(batch.told) for batch in house.device.batches] == [3] + [0] * (len(house.device.batches) - 1)
        file, seen, fed = house.file(process), [1, 2, 3], [1, 2, 3]
        while len(seen) < 33:
            done = house.inference.forward(process, file, [], int32(*fed), NONE, visible=NO_RANGES, mask=None,
                                           samples=[(len(fed) - 1, sampler)], probes=[])
            while not done.ready:
                await asyncio.sleep(STEP_SECONDS)
            fed = done.take().tokens
            seen += fed
        assert seen[3:] == said
        process.kill()
    simulate(test())


def test_the_past_is_what_passes_read() -> None:
    async def test() -> None:
        house = House("ours", pages=60)
        process = house.spawn()
        shared, own = house.file(process), house.file(process)
        for file, tokens in ((shared, [1, 2, 3, 4, 5]), (own, [6, 7])):
            file.begin_append()
            file.extend(tokens, range(len(tokens)))
            file.end_append()
        shared.hide(1, 2)
        past = Past([shared], own)
        assert past.end == 7
        assert past.seen(6, 0).tolist() == [1, 4, 5, 6, 7]
        assert past.seen(5, 2).tolist() == [5, 6]
        ranges = np.array([[0, 0, 4], [0, 6, 1]], np.int32)
        assert past.seen(6, 0, ranges).tolist() == [1, 4, 7]
        assert past.seen(6, 1, ranges).tolist() == [7]
        process.kill()
    simulate(test())


def test_lanes_with_a_history_are_forgotten() -> None:
    async def test() -> None:
        house = House("ours", pages=60)
        process = house.spawn()
        for penalties in (None, Penalties(presence=1.0)):
            sampler = Sampler(bias=Bias(int32(5), np.ones(1, np.float32)), penalties=penalties)
            run = house.inference.decode(
                process, house.file(process), [], int32(1), NONE, sampler=sampler, mask=None, max_tokens=3,
                stop_tokens=frozenset(), stop_sequences=(), deliver_every=3)
            while not run.ready:
                await asyncio.sleep(STEP_SECONDS)
            assert house.engine.lanes.taken == 0
        await house.say(process, house.file(process), [1, 2], 2)
        forgotten = [batch.forgotten.tolist() for batch in house.device.batches if len(batch.forgotten)]
        assert forgotten == [[0]]
        process.kill()
    simulate(test())
