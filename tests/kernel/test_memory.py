"""Programs that wait for tools, more of them than the device has room for: whatever the policy, each says what it would
have said alone, and nothing is lost."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import numpy as np
import pytest

from cadenza.kernel.batcher import WorkConserving
from cadenza.kernel.costs import Costs
from cadenza.kernel.device.batch import Batch, StepResult
from cadenza.kernel.device.local_link import LocalLink
from cadenza.kernel.engine import Engine
from cadenza.kernel.inference import Inference
from cadenza.kernel.limits import ProcessLimits
from cadenza.kernel.memory.foresight import Foresight
from cadenza.kernel.memory.named import POLICIES, memory_policy
from cadenza.kernel.pager import Pager
from cadenza.kernel.process import Process
from cadenza.kernel.sampler import Sampler
from cadenza.kernel.virtual_clock import simulate
from cadenza.kernel.waits import Intent
from cadenza.kvfs.directory import FileSystem
from cadenza.kvfs.errors import Invalid
from cadenza.kvfs.file import File
from cadenza.kvfs.pool import ABSENT, PagePool
from cadenza.kvfs.tiers import Tiers
from tests.kernel.test_engine import NONE, unhurried
from tests.kernel.toy_device import ToyDevice

STEP_SECONDS = 0.01


class SlowToy(ToyDevice):
    """A step takes its time."""

    def step(self, batch: Batch) -> StepResult:
        result = super().step(batch)
        result.seconds = STEP_SECONDS
        return result


class House:
    """An engine over the toy device, under a virtual clock."""

    def __init__(self, policy: str, *, pages: int = 24, host_pages: int = 64, run_ahead: int = 2, step_tokens: int = 16,
                 page_seconds: float = 0.002, link: type[LocalLink] = LocalLink) -> None:  # fmt: skip
        self.device = SlowToy(pages=pages, host_pages=host_pages)
        self.files = FileSystem(PagePool(pages, 4))
        self.pager = Pager(self.files, Tiers(self.files.pool, host_pages))
        self.link = link(self.device)
        self.engine = Engine(
            self.link, WorkConserving(step_tokens, 8), self.pager, memory=memory_policy(policy),
            costs=Costs(STEP_SECONDS, 1e-3, 8, page_seconds), run_ahead=run_ahead)
        self.inference = Inference(self.engine, self.device.facts)
        self._pids = 0

    def spawn(self, owner: str = "ada", *, priority: int = 0) -> Process:
        self._pids += 1
        nobody: Any = None
        return Process(self._pids, owner, nobody, "{}", ProcessLimits(wall_seconds=1e6), priority=priority,
                       close_file=self.files.close, waits=self.engine.waits,
                       on_ready=lambda p: None, on_end=lambda p: self.engine.abort(p.pid))

    def file(self, process: Process) -> File:
        file = self.files.create(process.owner)
        process.files.add(file)
        return file

    async def say(self, process: Process, file: File, tokens: list[int], most: int) -> list[int]:
        run = self.inference.decode(
            process, file, [], np.array(tokens, np.int32), NONE, sampler=Sampler(), mask=None, max_tokens=most,
            stop_tokens=frozenset(), stop_sequences=(), deliver_every=most)
        while not run.ready:
            await asyncio.sleep(STEP_SECONDS / 2)
        return run.take().tokens

    async def call(self, process: Process, tool: str, seconds: float, expected: float | None = None) -> None:
        process.waits.begin(process, [Intent(1, tool, expected)], every=False)
        await asyncio.sleep(seconds)
        process.waits.end(process, [1])

    def present(self, file: File) -> int:
        return int((self.files.pool.frames[file.pages] != ABSENT).sum())

    def check(self) -> None:
        self.files.recount()
        self.pager.recount()

    def check_empty(self) -> None:
        self.check()
        assert not self.engine.busy
        assert self.files.pool.used == 0
        assert not self.pager.tiers.lost


async def shared_prompt(house: House, chosen: random.Random) -> tuple[Process, File, list[int]]:
    """A program of ada's, its file, which others may fork, and what that holds, a token said behind it."""
    owner = house.spawn("ada")
    shared, prefix = house.file(owner), [chosen.randrange(900) for _ in range(11)]
    return owner, shared, prefix + await house.say(owner, shared, prefix, 1)


async def agent(house: House, chosen: random.Random, shared: File, prefix: list[int]) -> None:
    """Rounds of words and tools; sometimes over a fork of what others share, sometimes as a family of its own."""
    process = house.spawn(chosen.choice(["ada", "bob"]))
    held: list[int] = []
    if chosen.random() < 0.4:
        file = shared.fork(process.owner)
        process.files.add(file)
        held = list(prefix)
    else:
        file = house.file(process)
    for _ in range(chosen.randint(2, 3)):
        held += [chosen.randrange(900) for _ in range(chosen.randint(1, 12))]
        said = await house.say(process, file, held[len(file) :], chosen.randint(1, 6))
        assert said == unhurried(held, len(said)), f"{file!r} was spoilt"
        held += said
        if chosen.random() < 0.2:
            child = house.spawn(process.owner)
            fork = file.fork()
            child.files.add(fork)
            other = [*held, 901]
            assert await house.say(child, fork, other[len(fork) :], 2) == unhurried(other, 2)
            child.kill()
        tool = chosen.choice(["quick", "slow"])
        seconds = 0.02 if tool == "quick" else chosen.uniform(0.5, 5.0)
        await house.call(process, tool, seconds, seconds if chosen.random() < 0.3 else None)
    process.kill()


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("seed", range(6))
def test_each_says_what_it_would_have_said_alone(policy: str, seed: int) -> None:
    async def test() -> None:
        chosen = random.Random(seed)
        house = House(policy, pages=20, host_pages=chosen.choice([0, 6, 80]), run_ahead=chosen.choice([1, 2, 4]),
                      step_tokens=chosen.choice([6, 16, 64]), page_seconds=chosen.choice([0.0005, 0.004]))
        owner, shared, prefix = await shared_prompt(house, chosen)
        running = []
        for _ in range(14):
            await asyncio.sleep(chosen.expovariate(2.0))
            running.append(asyncio.ensure_future(agent(house, chosen, shared, prefix)))
            house.check()
        await asyncio.gather(*running)
        owner.kill()
        house.check_empty()
        moved = house.pager.swapped_out + house.engine.tokens_recomputed + house.engine.preemptions
        assert moved > 0, "the working set was never larger than the device"
    simulate(test())


def test_ours_leaves_alone_what_nobody_needs_and_discards_nothing_while_the_host_has_room() -> None:
    async def test() -> None:
        house = House("ours", pages=24)
        first, second = house.spawn(), house.spawn()
        mine, theirs = house.file(first), house.file(second)
        await house.say(first, mine, list(range(30)), 3)
        waiting = asyncio.ensure_future(house.call(first, "slow", 5.0))
        await asyncio.sleep(0.5)
        assert house.present(mine) == 8, "nobody needs the frames"
        await house.say(second, theirs, list(range(200, 270)), 3)
        assert house.present(mine) < 8
        assert house.pager.discarded == 0
        await waiting
        first.kill()
        second.kill()
        house.check_empty()
    simulate(test())


def test_ours_lets_those_go_first_that_come_back_last() -> None:
    async def test() -> None:
        house = House("ours", pages=24, page_seconds=0.0005)
        soon, late, busy = (house.spawn() for _ in range(3))
        near, far = house.file(soon), house.file(late)
        await house.say(soon, near, list(range(30)), 3)
        await house.say(late, far, list(range(100, 130)), 3)
        calls = [asyncio.ensure_future(house.call(late, "slow", 60.0, 60.0)),
                 asyncio.ensure_future(house.call(soon, "quick", 4.0, 4.0))]
        await asyncio.sleep(0.1)
        await house.say(busy, house.file(busy), list(range(300, 345)), 3)
        assert house.present(near) == 8
        assert house.present(far) < 8
        await asyncio.gather(*calls)
        house.check()
    simulate(test())


@pytest.mark.parametrize("busy", [True, False])
def test_what_comes_back_soon_is_fetched_before_it_asks(busy: bool) -> None:
    """Beside the steps of others, or with the device doing nothing else."""
    async def test() -> None:
        house = House("ours", pages=24, page_seconds=0.0005)
        waits, works, talks = (house.spawn() for _ in range(3))
        file, talk = house.file(waits), house.file(talks)
        await house.say(waits, file, list(range(30)), 3)
        call = asyncio.ensure_future(house.call(waits, "search", 10.0, 10.0))
        await asyncio.sleep(0.1)
        await house.say(works, house.file(works), list(range(300, 385)), 3)
        assert house.present(file) < 8
        works.kill()
        await asyncio.sleep(8.0)
        assert house.present(file) < 8
        talking = asyncio.ensure_future(house.say(talks, talk, [1, 2], 20 if busy else 1))
        await asyncio.sleep(0.3)
        assert house.present(file) < 8, "it comes back in a second and a half: too early"
        await talking
        await asyncio.sleep(0.9)
        talking = asyncio.ensure_future(house.say(talks, talk, [1], 40 if busy else 1))
        while house.present(file) < 8:
            await asyncio.sleep(STEP_SECONDS)
            assert not call.done(), "it came back, and its pages were not there"
        await asyncio.gather(call, talking)
    simulate(test())


def test_a_page_that_several_hold_goes_with_the_last_of_them() -> None:
    async def test(policy_shares: bool) -> int:
        house = House("ours", pages=36, page_seconds=0.0005)
        house.engine.reclaimer.policy = Foresight(shares=policy_shares)
        owner = house.spawn()
        trunk = house.file(owner)
        await house.say(owner, trunk, list(range(32)), 1)
        owner_calls, forks = [], []
        for number in range(2):
            process = house.spawn()
            fork = trunk.fork()
            process.files.add(fork)
            await house.say(process, fork, [500 + number] * 8, 1)
            forks.append(fork)
            seconds = 5.0 if number == 0 else 500.0
            owner_calls.append(asyncio.ensure_future(house.call(process, "search", seconds, seconds)))
        owner.kill()
        other = house.spawn()
        await house.say(other, house.file(other), list(range(600, 630)), 1)
        owner_calls.append(asyncio.ensure_future(house.call(other, "search", 50.0, 50.0)))
        await asyncio.sleep(0.2)
        works = house.spawn()
        await house.say(works, house.file(works), list(range(300, 378)), 1)
        for call in owner_calls:
            call.cancel()
        return house.present(forks[0])

    aware, unaware = simulate(test(True)), simulate(test(False))
    assert aware == 10, "its fork is back in five seconds"
    assert unaware < 10


@pytest.mark.parametrize("host_pages", [0, 64])
def test_priority_orders_memory_too(host_pages: int) -> None:
    """What is urgent does not wait for those to end who hold the pages, and they do not notice."""
    async def test() -> None:
        house = House("ours", pages=24, host_pages=host_pages)
        programs = [house.spawn(priority=0) for _ in range(3)] + [house.spawn(priority=1)]
        ended: list[int] = []

        async def talk(number: int, prompt: list[int], most: int) -> None:
            process = programs[number]
            assert await house.say(process, house.file(process), prompt, most) == unhurried(prompt, most)
            ended.append(number)
            process.kill()

        low = [asyncio.ensure_future(talk(n, list(range(100 * n, 100 * n + 14)), 34)) for n in range(3)]
        await asyncio.sleep(8 * STEP_SECONDS)
        await asyncio.gather(*low, talk(3, list(range(400, 450)), 4))
        assert ended[0] == 3
        assert house.engine.preemptions > 0
        house.check_empty()
    simulate(test())


def test_a_device_of_slow_moves_has_some_nevertheless() -> None:
    async def test() -> None:
        house = House("ours", pages=16, page_seconds=10.0)
        first, second = house.spawn(), house.spawn()
        mine = house.file(first)
        said = await house.say(first, mine, list(range(30)), 3)
        await house.say(second, house.file(second), list(range(200, 240)), 3)
        assert house.present(mine) < 8
        second.kill()
        assert await house.say(first, mine, [said[-1]], 3) == unhurried([*range(30), *said], 3)
        first.kill()
        house.check_empty()
    simulate(test())


def test_a_policy_that_is_not_there_is_refused_with_those_that_are() -> None:
    with pytest.raises(Invalid, match="no memory policy 'lru': there are ours, infercept"):
        memory_policy("lru")
