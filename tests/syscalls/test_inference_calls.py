"""Interface `inference`: what passes and runs do."""

from __future__ import annotations

import asyncio
import math
from typing import Any

import pytest

from cadenza.kernel.device.null_device import HIDDEN_SIZE, CostModel
from cadenza.kernel.process import Process
from cadenza.kvfs.errors import Closed, Invalid, NotFound, NotReady
from cadenza.syscalls.suspension import NextToken

from .asking import decode, forward, probe, sample
from .desk import Desk, a_draft, a_pass, a_run, a_sampler, in_loop

SLOW = CostModel(fixed_ms=3_600_000.0)


# --- forward ---

@in_loop
async def test_a_pass_appends_and_answers_in_the_order_asked() -> None:
    async with Desk(vocabulary_size=64) as desk:
        process = desk.spawn()
        file = desk.ask(process, "kv.create")
        handle = desk.ask(process, "inference.forward", a_pass(
            file, [5, 6, 7], samples=[sample(2), sample(0), sample(2)],
            probes=[probe(2, "entropy"), probe(0, "top", 3), probe(1, "log-probabilities", [4, 5]),
                    probe(0, "logits")]))
        with pytest.raises(NotReady):
            desk.ask(process, "inference.take-pass", handle)
        assert await desk.wait(process, handle) == [handle]
        done = desk.ask(process, "inference.take-pass", handle)
        assert done.tokens[0] == done.tokens[2] != done.tokens[1]
        assert (done.computed_tokens, done.reused_tokens) == (3, 0)
        entropy, top, asked, logits = done.probes
        assert (entropy.name, top.name, asked.name, logits.name) == ("entropy", "top", "log-probabilities", "logits")
        assert entropy.value == pytest.approx(math.log(64))
        assert list(top.value.tokens) == [0, 1, 2]
        assert list(top.value.log_probabilities) == pytest.approx([-math.log(64)] * 3)
        assert top.value.tail == pytest.approx(61 / 64)
        assert (len(asked.value), len(logits.value)) == (2, 64)
        assert desk.ask(process, "kv.stat", file).tokens == 3


@in_loop
async def test_positions_follow_what_is_read_unless_they_are_given() -> None:
    async with Desk() as desk:
        process = desk.spawn()
        page, file = desk.ask(process, "kv.create"), desk.ask(process, "kv.create")
        await forward(desk, process, a_pass(page, [1, 2], positions=[10, 4]))
        assert desk.ask(process, "kv.stat", page).next_position == 11
        await forward(desk, process, a_pass(file, [1, 2, 3], reads=[page]))
        assert desk.ask(process, "kv.stat", file).next_position == 14
        assert desk.ask(process, "kv.stat", page).tokens == 2


@in_loop
async def test_a_mask_binds_what_is_sampled() -> None:
    async with Desk() as desk:
        process = desk.spawn()
        file = desk.ask(process, "kv.create")
        only = {"tokens": [77], "allowed": True}
        assert (await forward(desk, process, a_pass(file, [1], mask=only, samples=[sample(0)]))).tokens == [77]
        assert await decode(desk, process, a_run(file, [1], mask=only)) == ([77] * 4, "length")
        with pytest.raises(Invalid, match="hides every token"):
            desk.ask(process, "inference.forward", a_pass(file, [1], mask={"tokens": [], "allowed": True}))
        with pytest.raises(Invalid, match="mask names a token"):
            desk.ask(process, "inference.decode", a_run(file, [1], mask={"tokens": [1024], "allowed": False}))


@in_loop
async def test_closing_a_pass_undoes_it() -> None:
    async with Desk(cost=SLOW) as desk:
        process = desk.spawn()
        file = desk.ask(process, "kv.create")
        handle = desk.ask(process, "inference.forward", a_pass(file, [1] * 40))
        await desk.settle()
        desk.ask(process, "events.close", handle)
        status = desk.ask(process, "kv.stat", file)
        assert (status.tokens, status.pages, status.busy) == (0, 0, False)


@in_loop
async def test_scores_are_of_every_token_after_the_row_named_and_none_is_found_in_the_pool() -> None:
    async with Desk() as desk:
        process = desk.spawn()
        tokens = [token % 7 for token in range(100)]
        even = pytest.approx(-math.log(1024))
        for scores_from, count in ((None, 0), (0, 99), (40, 59), (98, 1), (99, 0)):
            file = desk.ask(process, "kv.create")
            done = await forward(desk, process, a_pass(file, tokens, scores_from=scores_from))
            assert list(done.scores) == [even] * count
            if scores_from:
                assert done.reused_tokens <= scores_from
        with pytest.raises(Invalid, match="scores-from is row 100; the pass has 100 rows"):
            desk.ask(process, "inference.forward", a_pass(file, tokens, scores_from=100))


@in_loop
async def test_hidden_states() -> None:
    async with Desk() as desk:
        process = desk.spawn()
        file = desk.ask(process, "kv.create")
        done = await forward(desk, process, a_pass(file, [1, 2], probes=[probe(1, "hidden"), probe(0, "entropy")]))
        assert (done.probes[0].name, len(done.probes[0].value)) == ("hidden", HIDDEN_SIZE)


# --- decode ---

@in_loop
async def test_a_run_leaves_all_but_the_last_token_in_its_file() -> None:
    async with Desk() as desk:
        process = desk.spawn()
        file = desk.ask(process, "kv.create")
        said, finish = await decode(desk, process, a_run(file, [1, 2, 3], max_tokens=9))
        assert (len(said), finish) == (9, "length")
        status = desk.ask(process, "kv.stat", file)
        assert (status.tokens, status.next_position, status.busy) == (3 + 8, 11, False)


@in_loop
async def test_a_run_says_what_single_passes_would() -> None:
    async with Desk() as desk:
        process = desk.spawn()
        sampler = {"temperature": 1.0, "seed": 2**64 - 1}
        run, steps = desk.ask(process, "kv.create"), desk.ask(process, "kv.create")
        said, _ = await decode(desk, process, a_run(run, [1, 2], max_tokens=6, sampler=a_sampler(**sampler)))
        again, given = [], [1, 2]
        for _ in range(6):
            done = await forward(desk, process, a_pass(steps, given, samples=[sample(len(given) - 1, **sampler)]))
            given = list(done.tokens)
            again += given
        assert again == said
        other = desk.ask(process, "kv.create")
        different = a_sampler(temperature=1.0, seed=1)
        assert (await decode(desk, process, a_run(other, [1, 2], max_tokens=6, sampler=different)))[0] != said


@in_loop
async def test_what_ends_a_run() -> None:
    async with Desk(context_tokens=16, page_tokens=4) as desk:
        process = desk.spawn()

        async def run(**more: Any) -> tuple[list[int], str]:
            file = desk.ask(process, "kv.create")
            return await decode(desk, process, a_run(file, [1, 2], max_tokens=100, **more))
        said, finish = await run()
        assert (len(said), finish) == (15, "context-full")
        assert await run(stop_tokens=[said[3], 2**32 - 1]) == (said[: said.index(said[3]) + 1], "stop-token")
        assert await run(stop_sequences=[[9, 9, 9], said[1:3]]) == (said[:3], "stop-sequence")


@in_loop
async def test_deliver_every_says_when_a_run_is_ready() -> None:
    async with Desk(cost=CostModel(fixed_ms=1.0)) as desk:
        process = desk.spawn()
        handle = desk.ask(process, "inference.decode", a_run(desk.ask(process, "kv.create"), [1], max_tokens=7,
                                                             deliver_every=3))
        portions: list[Any] = []
        while not portions or portions[-1].finish == "running":
            assert await desk.wait(process, handle) == [handle]
            portions.append(desk.ask(process, "inference.take-tokens", handle))
        assert all(len(portion.tokens) >= 3 for portion in portions[:-1])
        assert sum(len(portion.tokens) for portion in portions) == 7
        assert portions[-1].finish == "length"
        assert desk.ask(process, "inference.take-tokens", handle)[:2] == ([], "length")


async def tokens_one_by_one(desk: Desk, process: Process, run: int) -> list[int]:
    """What `next-token` answers up to -1, asked again as soon as it has answered."""
    said: list[int] = []
    over = asyncio.Event()

    def ask() -> None:
        waiting = desk.ask(process, "inference.next-token", run)
        if isinstance(waiting, NextToken):
            waiting.subscribe(lambda: came(waiting.answer()))
        else:
            came(waiting)

    def came(token: int) -> None:
        said.append(token)
        if token < 0:
            over.set()
        else:
            ask()
    ask()
    await asyncio.wait_for(over.wait(), 20)
    return said


@in_loop
async def test_the_next_token_is_waited_for_and_taken() -> None:
    async with Desk() as desk:
        process = desk.spawn()
        expected, _ = await decode(desk, process, a_run(desk.ask(process, "kv.create"), [1], max_tokens=5))
        before = process.tokens
        run = desk.ask(process, "inference.decode", a_run(desk.ask(process, "kv.create"), [1], max_tokens=5))
        desk.ask(process, "inference.next-token", run).abandon()
        assert await tokens_one_by_one(desk, process, run) == [*expected[:4], -1]
        assert process.tokens == before + 4
        assert desk.ask(process, "inference.next-token", run) == -1, "it has ended: that is for take-tokens to say"
        left = desk.ask(process, "inference.take-tokens", run)
        assert (left.tokens, left.finish) == (expected[4:], "length")


@in_loop
async def test_what_next_token_cannot_say_is_left_for_take_tokens() -> None:
    async with Desk() as desk:
        process = desk.spawn()
        run = desk.ask(process, "inference.decode",
                       a_run(desk.ask(process, "kv.create"), [1], max_tokens=50, deliver_every=3))
        assert await tokens_one_by_one(desk, process, run) == [-1]
        assert len(desk.ask(process, "inference.take-tokens", run).tokens) >= 3
        desk.ask(process, "events.close", run)
        for handle in (run, desk.ask(process, "events.timer", 1)):
            assert desk.ask(process, "inference.next-token", handle) == -1
            with pytest.raises(NotFound):
                desk.ask(process, "inference.take-tokens", handle)


@in_loop
async def test_next_token_leaves_what_was_put_in_to_take_tokens() -> None:
    async with Desk() as desk:
        process = desk.spawn()
        run = desk.ask(process, "inference.decode", a_run(desk.ask(process, "kv.create"), [1], max_tokens=4))
        desk.ask(process, "inference.interject", run, [8, 9])
        [first, last] = await tokens_one_by_one(desk, process, run)
        assert last == -1 < first
        taken = desk.ask(process, "inference.take-tokens", run)
        assert [(each.first, each.count) for each in taken.interjected] == [(0, 2)]
        assert list(taken.tokens[:2]) == [8, 9]


@in_loop
async def test_stop_leaves_what_was_taken() -> None:
    async with Desk(cost=CostModel(fixed_ms=1.0)) as desk:
        process = desk.spawn()
        file = desk.ask(process, "kv.create")
        handle = desk.ask(process, "inference.decode", a_run(file, [1, 2, 3], max_tokens=1000))
        taken: list[int] = []
        while len(taken) < 4:
            await desk.wait(process, handle)
            taken += desk.ask(process, "inference.take-tokens", handle).tokens
        desk.ask(process, "inference.stop", handle)
        desk.ask(process, "inference.stop", handle)
        assert desk.ask(process, "inference.take-tokens", handle)[:2] == ([], "stopped")
        status = desk.ask(process, "kv.stat", file)
        assert (status.tokens, status.busy) == (3 + len(taken) - 1, False)


@pytest.mark.parametrize("how", ["inference.stop", "events.close"])
@in_loop
async def test_a_run_of_which_nothing_was_taken_has_never_been(how: str) -> None:
    async with Desk() as desk:
        process = desk.spawn()
        file = desk.ask(process, "kv.create")
        handle = desk.ask(process, "inference.decode", a_run(file, [1, 2, 3], deliver_every=100))
        await desk.wait(process, handle)
        desk.ask(process, how, handle)
        assert desk.ask(process, "kv.stat", file).tokens == 0


@in_loop
async def test_closing_an_ended_run_leaves_what_others_have_written_since() -> None:
    async with Desk() as desk:
        process = desk.spawn()
        file = desk.ask(process, "kv.create")
        handle = desk.ask(process, "inference.decode", a_run(file, [1, 2], max_tokens=5, deliver_every=100))
        await desk.wait(process, handle)
        desk.ask(process, "kv.truncate", file, 0)
        await forward(desk, process, a_pass(file, [7] * 6))
        desk.ask(process, "events.close", handle)
        assert desk.ask(process, "kv.stat", file).tokens == 6


@in_loop
async def test_passes_and_runs_are_taken_as_what_they_are() -> None:
    async with Desk() as desk:
        process = desk.spawn()
        one = desk.ask(process, "inference.forward", a_pass(desk.ask(process, "kv.create"), [1]))
        run = desk.ask(process, "inference.decode", a_run(desk.ask(process, "kv.create"), [1]))
        for call, handle in (("take-tokens", one), ("stop", one), ("take-pass", run), ("take-pass", 99)):
            with pytest.raises(NotFound, match=f"handle {handle} is not open"):
                desk.ask(process, f"inference.{call}", handle)
        await desk.wait(process, one, run)


@in_loop
async def test_a_program_puts_tokens_into_a_run_that_goes_on() -> None:
    async with Desk() as desk:
        process = desk.spawn()
        closed = {"mask": None, "moves": [], "otherwise": None, "open": False}
        file = desk.ask(process, "kv.create")
        handle = desk.ask(process, "inference.decode", a_run(file, [1, 2], max_tokens=3, deliver_every=3,
                                                             states=[closed]))
        desk.ask(process, "inference.interject", handle, [8, 9])
        await desk.wait(process, handle)
        taken = desk.ask(process, "inference.take-tokens", handle)
        assert len(taken.tokens) == 3
        assert not taken.interjected, "its only state is closed"
        with pytest.raises(Closed):
            desk.ask(process, "inference.interject", handle, [1])
        file = desk.ask(process, "kv.create")
        handle = desk.ask(process, "inference.decode", a_run(file, [1, 2], max_tokens=6, deliver_every=8))
        desk.ask(process, "inference.interject", handle, [8, 9])
        await desk.wait(process, handle)
        taken = desk.ask(process, "inference.take-tokens", handle)
        [put_in] = taken.interjected
        assert (list(taken.tokens[put_in.first : put_in.first + 2]), put_in.count) == ([8, 9], 2)
        assert (len(taken.tokens), taken.finish) == (8, "length"), "what was put in is not counted"


@in_loop
async def test_states_say_what_a_run_may_sample() -> None:
    async with Desk(vocabulary_size=64) as desk:
        process = desk.spawn()
        states = [
            {"mask": {"tokens": [3], "allowed": True}, "moves": [{"token": 3, "state": 1}], "otherwise": None,
             "open": True},
            {"mask": {"tokens": [5], "allowed": True}, "moves": [], "otherwise": 0, "open": False},
        ]
        said = await decode(desk, process, a_run(desk.ask(process, "kv.create"), [1], max_tokens=6, states=states))
        assert said == ([3, 5, 3, 5, 3, 5], "length")


# --- verify ---

@in_loop
async def test_a_draft_is_verified_as_decoding_would_go_on() -> None:
    async with Desk(vocabulary_size=64) as desk:
        process = desk.spawn()
        plain, file = desk.ask(process, "kv.create"), desk.ask(process, "kv.create")
        hot = a_sampler(temperature=1.0, seed=9)
        said, _ = await decode(desk, process, a_run(plain, [5, 6], max_tokens=6, sampler=hot))
        await forward(desk, process, a_pass(file, [5]))
        wrong = (said[0] + 1) % 64
        handle = desk.ask(process, "inference.verify", a_draft(
            file, 6, [wrong, *said[:2], wrong, said[2]], [0, 0, 2, 2, 3], sampler=hot))
        with pytest.raises(NotReady):
            desk.ask(process, "inference.take-verified", handle)
        with pytest.raises(NotFound):
            desk.ask(process, "inference.take-pass", handle)
        await desk.wait(process, handle)
        assert desk.ask(process, "inference.take-verified", handle) == (said[:4], 3, 6, "running")
        assert desk.ask(process, "kv.tokens", file, {"first": 0, "count": 5}).tolist() == [5, 6, *said[:3]]
        assert process.tokens == 6 + 4
        with pytest.raises(Invalid):
            desk.ask(process, "inference.verify", a_draft(file, said[3], [1, 2], [0, 2]))
        handle = desk.ask(process, "inference.verify", a_draft(file, said[3], [], [], sampler=hot))
        await desk.wait(process, handle)
        assert desk.ask(process, "inference.take-verified", handle) == (said[4:5], 0, 1, "running")
