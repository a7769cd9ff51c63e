"""A device is lost in the middle of everything, and comes back: programs say what they would have said."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path

import pytest

from cadenza.kernel.limits import DEVICE_LOSSES_PER_PASS, DEVICE_RESTARTS, DEVICE_RESTARTS_WITHIN_SECONDS
from cadenza.kernel.verification import Verdict
from cadenza.kernel.virtual_clock import simulate
from cadenza.kvfs.errors import DeviceLost
from tests.kernel.test_engine import Bench, in_loop, unhurried
from tests.kernel.test_guided_runs import Told
from tests.kernel.test_memory import House, agent, shared_prompt
from tests.kernel.test_storage import WRITE, StoredBench
from tests.kernel.test_verification import verify
from tests.kernel.toy_device import MortalLink, next_token


def mortal(**options: int) -> Bench:
    bench = Bench(**options)
    bench.link.comes_back = True
    return bench


@pytest.mark.parametrize("after", range(8))
@pytest.mark.parametrize("step_tokens", [3, 64])
def test_a_run_goes_on_and_nothing_is_said_twice(after: int, step_tokens: int) -> None:
    async def test() -> None:
        bench = mortal(step_tokens=step_tokens)
        file = bench.file()
        run = bench.decode(file, list(range(9)), 12)
        for _ in range(after):
            await asyncio.sleep(0)
            if bench.link.waiting:
                bench.link.answer()
        first = run.take().tokens
        bench.link.die()
        await bench.settle()
        assert first + run.take().tokens == unhurried(list(range(9)), 12)
        assert bench.engine.recovery.losses == 1
        bench.check_all_returned()
    in_loop(test)


def test_files_are_computed_again_when_they_are_read_next() -> None:
    async def test() -> None:
        bench = mortal()
        file, idle = bench.file(), bench.file()
        for each in (file, idle):
            bench.forward(each, list(range(10)))
        await bench.settle()
        child = file.fork()
        bench.process.files.add(child)
        bench.link.die()
        fed = bench.engine.tokens_done
        one, two = bench.forward(file, [50], samples=(0,)), bench.forward(child, [51], samples=(0,))
        await bench.settle()
        assert one.take().tokens == [next_token([*range(10), 50])]
        assert two.take().tokens == [next_token([*range(10), 51])]
        assert bench.engine.tokens_done - fed < 26, "what both read is computed once, but for its last page"
        assert bench.pager.lost_tokens(two) == 0
        assert len(idle) == 10
        bench.check_all_returned()
    in_loop(test)


def test_what_cannot_be_computed_again_is_told_and_can_be_made_anew() -> None:
    async def test() -> None:
        bench = mortal()
        file, reader = bench.file(), bench.file()
        bench.forward(file, list(range(8)))
        await bench.settle()
        file.relocate(3)
        waiting = bench.decode(reader, [1], 5, reads=(file,))
        await asyncio.sleep(0)
        bench.link.die()
        await bench.settle()
        with pytest.raises(DeviceLost, match="make the file anew"):
            waiting.take()
        with pytest.raises(DeviceLost, match="cut it back"):
            bench.forward(file, [1])
        assert not file.busy
        file.truncate(0)
        again = bench.forward(file, [4], samples=(0,))
        await bench.settle()
        assert again.take().tokens == [next_token([4])]
        bench.check_all_returned()
    in_loop(test)


def test_what_was_there_each_time_a_device_was_lost_fails_and_others_go_on() -> None:
    async def test() -> None:
        bench = mortal()
        suspect = bench.decode(bench.file(), [1], 30)
        for _ in range(DEVICE_LOSSES_PER_PASS - 1):
            await asyncio.sleep(0)
            bench.link.die()
            await asyncio.sleep(0.01)
        late = bench.decode(bench.file(), [2], 4)              # not fed yet when it happens again
        bench.link.die()
        with pytest.raises(DeviceLost, match=f"under way {DEVICE_LOSSES_PER_PASS} times"):
            suspect.take()
        await bench.settle()
        assert late.take().tokens == unhurried([2], 4)
        bench.check_all_returned()
    in_loop(test)


def test_it_is_tried_several_times_and_then_all_is_told() -> None:
    async def test() -> None:
        house = House("ours", link=MortalLink)
        link = house.link
        assert isinstance(link, MortalLink)
        process = house.spawn()
        link.fails = DEVICE_RESTARTS - 1
        link.die()
        await asyncio.sleep(1)
        assert await house.say(process, house.file(process), [1, 2], 3) == unhurried([1, 2], 3)
        assert link.starts == DEVICE_RESTARTS
        link.die()
        with pytest.raises(DeviceLost, match="lightning"):
            await house.say(process, house.file(process), [1, 2], 3)
        with pytest.raises(DeviceLost, match="lightning"):
            await house.say(process, house.file(process), [1, 2], 3)
        assert link.starts == DEVICE_RESTARTS
        process.kill()
        house.check_empty()
    simulate(test())


def test_restarts_are_forgiven_in_time() -> None:
    async def test() -> None:
        house = House("ours", link=MortalLink)
        process = house.spawn()
        for _ in range(2 * DEVICE_RESTARTS):
            house.link.die()  # type: ignore[attr-defined]
            assert await house.say(process, house.file(process), [1, 2], 3) == unhurried([1, 2], 3)
            await asyncio.sleep(DEVICE_RESTARTS_WITHIN_SECONDS / 2)
        process.kill()
        house.check_empty()
    simulate(test())


@pytest.mark.parametrize("seed", range(8))
def test_each_says_what_it_would_have_said_alone_whenever_the_device_dies(seed: int) -> None:
    async def test() -> None:
        chosen = random.Random(seed)
        house = House("ours", pages=20, host_pages=chosen.choice([0, 6, 80]), run_ahead=chosen.choice([1, 2, 4]),
                      step_tokens=chosen.choice([6, 16, 64]), link=MortalLink)
        owner, shared, prefix = await shared_prompt(house, chosen)
        running = []
        for number in range(12):
            await asyncio.sleep(chosen.expovariate(2.0))
            running.append(asyncio.ensure_future(agent(house, chosen, shared, prefix)))
            if number in (4, 8):
                await asyncio.sleep(chosen.uniform(0, 0.2))
                house.link.die()  # type: ignore[attr-defined]
                await asyncio.sleep(0)
                house.check()
        await asyncio.gather(*running)
        owner.kill()
        house.check_empty()
        assert house.engine.recovery.losses == 2
    simulate(test())


@pytest.mark.parametrize("seed", range(6))
def test_states_interjections_and_stops_outlive_a_device(seed: int) -> None:
    async def test() -> None:
        chosen = random.Random(seed)
        house = House("ours", pages=48, run_ahead=chosen.choice([1, 2, 4]), link=MortalLink)
        programs = [Told(house, 100 * seed + number, chosen.choice([0.0, 1.0])) for number in range(6)]
        living = [asyncio.ensure_future(program.live()) for program in programs]
        await asyncio.sleep(chosen.uniform(0, 0.2))
        house.link.die()  # type: ignore[attr-defined]
        await asyncio.gather(*living)
        house.check_empty()
    simulate(test())


def test_a_draft_is_verified_anew() -> None:
    async def test() -> None:
        bench = mortal()
        file = bench.file()
        said = unhurried([1, 2, 3], 3)
        bench.forward(file, [1, 2])
        await bench.settle()
        draft = verify(bench, file, 3, ([9, said[0], said[1]], [0, 0, 2]))
        await asyncio.sleep(0)
        bench.link.die()
        await bench.settle()
        assert draft.take() == Verdict(said, 2, 4, "running")
        bench.link.die()                                       # right after what was accepted has moved
        again = bench.decode(file, said[2:], 2)
        await bench.settle()
        assert again.take().tokens == unhurried([1, 2, 3, *said], 2)
        bench.check_all_returned()
    in_loop(test)


def test_what_is_on_disk_comes_from_there_and_a_sync_under_way_is_told(tmp_path: Path) -> None:
    async def test() -> None:
        bench = StoredBench(tmp_path)
        bench.link.comes_back = True
        file = bench.open("a", WRITE)
        said = await bench.say(file, list(range(30)), 3)
        file.relocate(2)                                       # a plain prefill would not give it again
        await bench.sync(file)
        other = bench.open("b", WRITE)
        await bench.say(other, list(range(200, 220)), 2)
        sync = bench.storage.sync(other)
        while not bench.link.waiting:
            await asyncio.sleep(0)
        bench.link.die()
        with pytest.raises(DeviceLost):
            await bench.done(sync)
        fed = bench.engine.tokens_done
        assert len(await bench.say(file, [said[-1]], 1)) == 1
        assert bench.engine.tokens_done - fed == 1
        await bench.sync(other)                                # computed again first
        assert other.durable
        await bench.end()
    in_loop(test)
