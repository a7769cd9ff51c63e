"""Passes and runs through the engine, on a device that answers when it is told to."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cadenza.kernel.batcher import WorkConserving
from cadenza.kernel.engine import Engine
from cadenza.kernel.inference import Inference
from cadenza.kernel.limits import ProcessLimits
from cadenza.kernel.pager import Pager
from cadenza.kernel.passes import Pass
from cadenza.kernel.process import Process
from cadenza.kernel.runs import Run
from cadenza.kernel.sampler import Sampler
from cadenza.kvfs.directory import FileSystem
from cadenza.kvfs.errors import Busy, DeviceLost, Internal, Invalid, LimitExceeded, NoPages, NotReady, TooLong
from cadenza.kvfs.file import File
from cadenza.kvfs.pool import PagePool
from cadenza.kvfs.tiers import Tiers

from .toy_device import VOCABULARY, HeldLink, ToyDevice, next_token

NONE = np.zeros(0, np.int32)
NO_RANGES = np.zeros((0, 3), np.int32)


class Bench:
    """An engine over the toy device, and one process to ask it things."""

    def __init__(self, *, run_ahead: int = 2, step_tokens: int = 64, step_rows: int = 16,
                 patience_seconds: float = 5.0, **device: int) -> None:
        self.device = ToyDevice(**device)
        self.link = HeldLink(self.device)
        facts = self.device.facts
        self.files = FileSystem(PagePool(facts.pages, facts.page_tokens))
        self.pager = Pager(self.files, self.new_tiers())
        self.engine = Engine(self.link, WorkConserving(step_tokens, step_rows), self.pager, run_ahead=run_ahead,
                             patience_seconds=patience_seconds)
        self.inference = Inference(self.engine, self.device.facts)
        self.process = self.new_process()

    def new_tiers(self) -> Tiers:
        return Tiers(self.files.pool, self.device.facts.host_pages)

    def new_process(self, *, priority: int = 0, limits: ProcessLimits | None = None) -> Process:
        nobody: Any = None
        return Process(1, "ada", nobody, "{}", limits or ProcessLimits(), priority=priority,
                       close_file=self.files.close, on_ready=lambda p: None, on_end=lambda p: None)

    def file(self, process: Process | None = None) -> File:
        file = self.files.create("ada")
        (process or self.process).files.add(file)
        return file

    def decode(self, file: File, tokens: list[int], most: int, *, process: Process | None = None,
               reads: tuple[File, ...] = (), stop: frozenset[int] = frozenset(), every: int = 1,
               sequences: tuple[tuple[int, ...], ...] = (), temperature: float = 0.0) -> Run:
        return self.inference.decode(
            process or self.process, file, reads, np.array(tokens, np.int32), NONE,
            sampler=Sampler(temperature), mask=None, max_tokens=most, stop_tokens=stop, stop_sequences=sequences,
            deliver_every=every)

    def forward(self, file: File, tokens: list[int], samples: tuple[int, ...] = (), *, reads: tuple[File, ...] = (),
                process: Process | None = None, visible: np.ndarray[Any, Any] = NO_RANGES) -> Pass:
        return self.inference.forward(
            process or self.process, file, reads, np.array(tokens, np.int32), NONE, visible=visible, mask=None,
            samples=[(row, Sampler()) for row in samples], probes=[])

    async def settle(self) -> None:
        """Answers steps until there is nothing under way."""
        for _ in range(10_000):
            await asyncio.sleep(0)
            if not self.link.waiting:
                await asyncio.sleep(0)
                if not self.link.waiting:
                    return
            else:
                self.link.answer()
        raise AssertionError("the engine never came to rest")

    def check_all_returned(self) -> None:
        self.process.kill()
        self.pager.tiers.recount([])
        self.files.recount()
        assert self.files.pool.used == 0
        assert self.engine.lanes.taken == 0


def unhurried(prompt: list[int], most: int, stop: frozenset[int] = frozenset()) -> list[int]:
    """What a run must say: asked token by token."""
    seen, said = list(prompt), []
    while len(said) < most:
        said.append(next_token(seen))
        seen.append(said[-1])
        if said[-1] in stop:
            break
    return said


def in_loop(test: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(test())


@pytest.mark.parametrize("run_ahead", [1, 2, 4])
@pytest.mark.parametrize("step_tokens", [1, 3, 64])
def test_a_run_says_what_an_unhurried_one_would(run_ahead: int, step_tokens: int) -> None:
    async def test() -> None:
        bench = Bench(run_ahead=run_ahead, step_tokens=step_tokens)
        file = bench.file()
        run = bench.decode(file, [5, 6, 7], 20)
        await bench.settle()
        progress = run.take()
        assert progress.tokens == unhurried([5, 6, 7], 20)
        assert progress.finish == "length"
        assert file.tokens().tolist() == [5, 6, 7, *progress.tokens[:-1]]
        bench.check_all_returned()
    in_loop(test)


def test_many_runs_share_steps_and_none_disturbs_another() -> None:
    async def test() -> None:
        bench = Bench(step_rows=4, pages=256)
        prompts = [[n, n + 1, n * 7 % 97][: 1 + n % 3] for n in range(13)]
        runs = [bench.decode(bench.file(), p, 9) for p in prompts]
        await bench.settle()
        assert [r.take().tokens for r in runs] == [unhurried(p, 9) for p in prompts]
        assert max(len(b.row_starts) - 1 for b in bench.device.batches) == 4
        bench.check_all_returned()
    in_loop(test)


def test_a_stop_token_ends_a_run_and_what_ran_ahead_is_cut() -> None:
    async def test() -> None:
        said = unhurried([1], 10)
        bench = Bench(run_ahead=4)
        file = bench.file()
        run = bench.decode(file, [1], 10, stop=frozenset({said[4]}))
        await bench.settle()
        progress = run.take()
        assert (progress.tokens, progress.finish) == (said[: said.index(said[4]) + 1], "stop-token")
        assert len(file) == len(progress.tokens)
        again = bench.decode(file, progress.tokens[-1:], 3)
        await bench.settle()
        assert again.take().tokens == unhurried([1, *progress.tokens], 3)
        bench.check_all_returned()
    in_loop(test)


def test_a_stop_sequence_is_found_across_steps() -> None:
    async def test() -> None:
        said = unhurried([2], 8)
        bench = Bench()
        run = bench.decode(bench.file(), [2], 8, sequences=((said[2], said[3]),))
        await bench.settle()
        assert run.take()[:2] == (said[:4], "stop-sequence")
        bench.check_all_returned()
    in_loop(test)


def test_a_full_context_ends_a_run() -> None:
    async def test() -> None:
        bench = Bench(context_tokens=8)
        file = bench.file()
        run = bench.decode(file, [1, 2, 3], 100)
        await bench.settle()
        progress = run.take()
        assert progress.finish == "context-full"
        assert len(file) == 8
        assert progress.tokens == unhurried([1, 2, 3], 6)
        with pytest.raises(TooLong, match="holds 8"):
            bench.decode(file, progress.tokens[-1:], 1)
        assert not file.busy
        bench.check_all_returned()
    in_loop(test)


def test_stop_undoes_what_was_not_taken() -> None:
    async def test() -> None:
        bench = Bench(run_ahead=3)
        file = bench.file()
        run = bench.decode(file, [9, 8], 50)
        taken: list[int] = []
        while len(taken) < 3:
            await asyncio.sleep(0)
            bench.link.answer()
            taken += run.take().tokens
        run.stop()
        await bench.settle()
        assert taken == unhurried([9, 8], 50)[: len(taken)]
        assert file.tokens().tolist() == [9, 8, *taken[:-1]]
        run = bench.decode(file, [taken[-1], 77], 4)
        await bench.settle()
        assert run.take().tokens == unhurried([9, 8, *taken, 77], 4)
        bench.check_all_returned()
    in_loop(test)


def test_a_run_of_which_nothing_was_taken_has_never_been() -> None:
    async def test() -> None:
        bench = Bench()
        file = bench.file()
        run = bench.decode(file, [1, 2, 3], 5)
        await asyncio.sleep(0)
        bench.link.answer()
        run.close()
        await bench.settle()
        assert len(file) == 0
        assert not file.busy
        bench.check_all_returned()
    in_loop(test)


def test_an_error_of_a_step_fails_those_in_it_and_nobody_else() -> None:
    async def test() -> None:
        bench = Bench(step_rows=1)
        first, second = bench.file(), bench.file()
        bad, good = bench.decode(first, [1], 4), bench.decode(second, [2], 4)
        await asyncio.sleep(0)
        bench.link.answer("out of cheese")
        await bench.settle()
        with pytest.raises(Internal, match="out of cheese"):
            bad.take()
        assert len(first) == 0
        assert good.take().tokens == unhurried([2], 4)
        bench.check_all_returned()
    in_loop(test)


def test_a_lost_device_fails_everything_and_later_work() -> None:
    async def test() -> None:
        bench = Bench()
        file = bench.file()
        run = bench.decode(file, [1], 4)
        await asyncio.sleep(0)
        bench.link.die()
        await bench.settle()
        with pytest.raises(DeviceLost, match="signal 9"):
            run.take()
        with pytest.raises(DeviceLost):
            bench.decode(file, [1], 4)
        bench.check_all_returned()
    in_loop(test)


def test_a_chunked_pass_answers_in_the_order_asked() -> None:
    async def test() -> None:
        bench = Bench(step_tokens=3)
        tokens = list(range(10, 20))
        one = bench.forward(bench.file(), tokens, samples=(9, 0, 5))
        with pytest.raises(NotReady):
            one.take()
        await bench.settle()
        assert one.take().tokens == [next_token(tokens), next_token(tokens[:1]), next_token(tokens[:6])]
        assert one.take().computed_tokens == 10
        bench.check_all_returned()
    in_loop(test)


def test_a_pass_reads_several_files_as_they_were_when_it_was_asked() -> None:
    async def test() -> None:
        bench = Bench()
        one, two, mine = bench.file(), bench.file(), bench.file()
        for file, tokens in ((one, [1, 2, 3]), (two, [4, 5, 6, 7, 8])):
            bench.forward(file, tokens)
        await bench.settle()
        asked = bench.forward(mine, [9], samples=(0,), reads=(one, two))
        one.truncate(0)
        await bench.settle()
        assert asked.take().tokens == [next_token([1, 2, 3, 4, 5, 6, 7, 8, 9])]
        bench.check_all_returned()
    in_loop(test)


def test_two_wide_passes_do_not_share_a_step() -> None:
    async def test() -> None:
        bench = Bench(pages=256)
        rows = tuple([0] * 700)
        wide = [bench.forward(bench.file(), [n, n + 1], samples=rows) for n in range(3)]
        plain = bench.decode(bench.file(), [1], 3)
        await bench.settle()
        assert [w.take().tokens for w in wide] == [[next_token([n])] * 700 for n in range(3)]
        assert plain.take().tokens == unhurried([1], 3)
        assert max(len(b.sample_tokens) for b in bench.device.batches) == 701
        bench.check_all_returned()
    in_loop(test)


def test_one_file_has_one_writer() -> None:
    async def test() -> None:
        bench = Bench()
        file = bench.file()
        bench.decode(file, [1], 4)
        with pytest.raises(Busy):
            bench.forward(file, [2])
        await bench.settle()
        bench.check_all_returned()
    in_loop(test)


@pytest.mark.parametrize("run_ahead", [1, 3])
def test_when_pages_run_out_everybody_still_says_what_he_would_have_alone(run_ahead: int) -> None:
    async def test() -> None:
        bench = Bench(pages=6, page_tokens=4, run_ahead=run_ahead, step_tokens=5)
        runs = [bench.decode(bench.file(), [n, n + 1], 16) for n in range(7)]
        asked = bench.forward(bench.file(), list(range(20)), samples=(3, 19))
        left = [*runs, asked]
        while left:
            await bench.settle()
            for work in [w for w in left if w.over]:
                left.remove(work)
                bench.files.close(work.file)
            await asyncio.sleep(0.001)
        assert [r.take().tokens for r in runs] == [unhurried([n, n + 1], 16) for n in range(7)]
        assert asked.take().tokens == [next_token(list(range(4))), next_token(list(range(20)))]
        assert bench.engine.preemptions > 0
        bench.files.recount()
        assert bench.files.pool.used == 0
    in_loop(test)


def test_a_pool_too_small_for_one_pass_fails_that_pass_alone() -> None:
    async def test() -> None:
        bench = Bench(pages=4, page_tokens=4, patience_seconds=0.0)
        small = bench.decode(bench.file(), [3, 4], 10)
        large = bench.forward(bench.file(), list(range(20)))
        await bench.settle()
        assert small.take().tokens == unhurried([3, 4], 10)
        with pytest.raises(NoPages):
            large.take()
        bench.check_all_returned()
    in_loop(test)


def test_the_limit_of_pages_is_the_process_s_own() -> None:
    async def test() -> None:
        bench = Bench(pages=64, page_tokens=4)
        small = bench.new_process(limits=ProcessLimits(kv_pages=2))
        file = bench.file(small)
        bench.forward(file, list(range(8)), process=small)
        await bench.settle()
        with pytest.raises(LimitExceeded, match="its limit is 2"):
            bench.forward(file, [1], process=small)
        run = bench.decode(bench.file(), [1], 60)
        await bench.settle()
        assert len(run.take().tokens) == 60
        small.kill()
        bench.check_all_returned()
    in_loop(test)


def test_higher_priority_goes_first() -> None:
    async def test() -> None:
        bench = Bench(step_tokens=4, run_ahead=1)
        urgent = bench.new_process(priority=5)
        slow = bench.forward(bench.file(), list(range(40)))
        await asyncio.sleep(0)
        fast = bench.forward(bench.file(urgent), list(range(8)), process=urgent)
        for _ in range(3):
            await asyncio.sleep(0)
            bench.link.answer()
            await asyncio.sleep(0)
        assert fast.ready
        assert not slow.ready
        await bench.settle()
        urgent.kill()
        bench.check_all_returned()
    in_loop(test)


@pytest.mark.parametrize(("change", "fault"), [
    ({"tokens": []}, "1 to"),
    ({"tokens": [VOCABULARY]}, "vocabulary of 997"),
    ({"tokens": list(range(600))}, "holds 512"),
    ({"temperature": float("nan")}, "temperature is nan"),
    ({"temperature": -1.0}, "temperature is -1"),
    ({"most": 0}, "max_tokens"),
    ({"every": 0}, "deliver_every"),
    ({"sequences": ((),)}, "stop sequence is empty"),
])
def test_bad_runs_are_refused_and_leave_nothing(change: dict[str, Any], fault: str) -> None:
    async def test() -> None:
        bench = Bench()
        file = bench.file()
        request: dict[str, Any] = {"tokens": [1], "most": 4, **change}
        with pytest.raises(Invalid, match=fault):
            bench.decode(file, **request)
        assert not file.busy
        bench.check_all_returned()
    in_loop(test)


def test_masks_and_ranges_that_hide_everything_are_refused() -> None:
    async def test() -> None:
        bench = Bench()
        with pytest.raises(Invalid, match="hides every token"):
            bench.inference.mask(NONE, allowed=True)
        with pytest.raises(Invalid, match="hide row 1 from itself"):
            bench.forward(bench.file(), [1, 2], visible=np.array([[1, 0, 1]], np.int32))
        bench.check_all_returned()
    in_loop(test)


# --- random programs ---

STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("decode"), st.integers(0, 3), st.integers(1, 6), st.integers(1, 9)),
        st.tuples(st.just("forward"), st.integers(0, 3), st.integers(1, 9), st.just(0)),
        st.tuples(st.just("fork"), st.integers(0, 3), st.integers(0, 3), st.just(0)),
        st.tuples(st.just("truncate"), st.integers(0, 3), st.integers(0, 20), st.just(0)),
        st.tuples(st.just("stop"), st.integers(0, 3), st.integers(0, 4), st.integers(0, 4)),
    ),
    min_size=1, max_size=25,
)


class RandomProgram:
    """Does the same to files and to plain lists, with runs stopped in the middle of what is under way."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self.files = [bench.file() for _ in range(4)]
        self.lists: list[list[int]] = [[], [], [], []]
        self.fresh = 0

    def tokens(self, count: int) -> list[int]:
        self.fresh += count
        return [(self.fresh + n) * 31 % VOCABULARY for n in range(count)]

    async def do(self, what: str, which: int, a: int, b: int) -> None:
        file, seen = self.files[which], self.lists[which]
        if what == "decode":
            prompt = self.tokens(a)
            run = self.bench.decode(file, prompt, b)
            await self.bench.settle()
            said = unhurried(seen + prompt, b)
            assert run.take().tokens == said
            self.lists[which] = [*seen, *prompt, *said[:-1]]
        elif what == "forward":
            prompt = self.tokens(a)
            asked = self.bench.forward(file, prompt, samples=(a - 1,))
            await self.bench.settle()
            assert asked.take().tokens == [next_token(seen + prompt)]
            self.lists[which] = seen + prompt
        elif what == "fork":
            forked = file.fork()
            self.files[a].close()
            self.files[a], self.lists[a] = forked, list(seen)
        elif what == "truncate":
            keep = min(a, len(seen))
            file.truncate(keep)
            self.lists[which] = seen[:keep]
        else:
            await self.stop_in_the_middle(which, answers=a, takes=b)
        assert len(self.files[which]) == len(self.lists[which])

    async def stop_in_the_middle(self, which: int, answers: int, takes: int) -> None:
        file, seen = self.files[which], self.lists[which]
        prompt = self.tokens(2)
        run = self.bench.decode(file, prompt, 12)
        taken: list[int] = []
        for n in range(answers):
            await asyncio.sleep(0)
            if self.bench.link.waiting:
                self.bench.link.answer()
            if n < takes:
                taken += run.take().tokens
        run.stop()
        assert taken == unhurried(seen + prompt, 12)[: len(taken)]
        if taken:
            self.lists[which] = [*seen, *prompt, *taken[:-1]]


@settings(max_examples=150, deadline=None)
@given(steps=STEPS, run_ahead=st.integers(1, 4), step_tokens=st.sampled_from([1, 2, 5, 64]))
def test_any_program_finds_the_state_of_an_unhurried_one(
    steps: list[tuple[str, int, int, int]], run_ahead: int, step_tokens: int
) -> None:
    async def test() -> None:
        bench = Bench(run_ahead=run_ahead, step_tokens=step_tokens, pages=512, context_tokens=4096)
        program = RandomProgram(bench)
        for step in steps:
            await program.do(*step)
        await bench.settle()
        bench.files.recount()
        for file, seen in zip(program.files, program.lists, strict=True):
            if seen:
                asked = bench.forward(file, [1], samples=(0,))
                await bench.settle()
                assert asked.take().tokens == [next_token([*seen, 1])]
            file.close()
        bench.check_all_returned()
    in_loop(test)


@pytest.mark.parametrize("run_ahead", [0, 6])
def test_steps_ahead_are_as_many_as_there_are_slots_for(run_ahead: int) -> None:
    with pytest.raises(Invalid, match="there may be 1 to 5"):
        Bench(run_ahead=run_ahead)
