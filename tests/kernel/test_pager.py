"""Pages leave the device for the host tier and come back: nobody's tokens change, nothing is lost."""

from __future__ import annotations

import random

import numpy as np
import pytest

from cadenza.kvfs.errors import NoPages
from cadenza.kvfs.pool import ABSENT
from tests.kernel.test_engine import Bench, in_loop, unhurried


def test_an_idle_file_leaves_and_comes_back() -> None:
    async def test() -> None:
        bench = Bench(pages=8, host_pages=8)
        idle = bench.file()
        first = bench.decode(idle, list(range(20)), 3)
        await bench.settle()
        said = first.take().tokens
        busy = bench.decode(bench.file(), list(range(50, 70)), 3)
        await bench.settle()
        assert busy.take().tokens == unhurried(list(range(50, 70)), 3)
        gone = [page for page in idle.pages if bench.files.pool.frames[page] == ABSENT]
        assert len(gone) == 4
        for page in gone:
            image = bench.link.host[bench.pager.tiers.host[page]].view(np.int64)
            first_slot = 4 * idle.pages.index(page)
            held = idle.tokens()[first_slot : first_slot + 4].tolist()
            assert image[: len(held)].tolist() == held
        last = bench.decode(idle, [said[-1]], 4)
        await bench.settle()
        assert last.take().tokens == unhurried([*range(20), *said], 4)
        assert bench.pager.swapped_in == 4
        bench.files.recount()
        bench.check_all_returned()
    in_loop(test)


def test_the_file_used_longest_ago_leaves_first_and_shared_pages_leave_once() -> None:
    async def test() -> None:
        bench = Bench(pages=12, host_pages=12)
        files = [bench.file() for _ in range(3)]
        for n, file in enumerate(files):
            bench.forward(file, [100 * n + i for i in range(12)])
            await bench.settle()
        fork = files[1].fork()
        bench.process.files.add(fork)
        bench.forward(files[0], [1])
        await bench.settle()
        assert bench.pager.make_room(5)
        frames = bench.files.pool.frames
        assert [int((frames[file.pages] == ABSENT).sum()) for file in files] == [0, 3, 0]
        assert len(bench.pager.tiers.host) == 3
        run = bench.decode(fork, [9], 2)
        await bench.settle()
        assert run.take().tokens == unhurried([*range(100, 112), 9], 2)
        bench.check_all_returned()
    in_loop(test)


def test_what_cannot_be_computed_again_stays_and_the_rest_fails_when_the_host_tier_is_full() -> None:
    async def test() -> None:
        bench = Bench(pages=8, host_pages=2, patience_seconds=0)
        for n in range(2):
            visible = np.array([[row, 0, row + 1] for row in range(12)], np.int32)
            bench.forward(bench.file(), [100 * n + i for i in range(12)], visible=visible)
        await bench.settle()
        run = bench.decode(bench.file(), list(range(30)), 2)      # eight pages: six are idle, two of them can leave
        await bench.settle()
        with pytest.raises(NoPages):
            run.take()
        assert (bench.pager.swapped_out, bench.pager.discarded) == (2, 0)
        bench.files.recount()
        bench.check_all_returned()
    in_loop(test)


@pytest.mark.parametrize("together", [False, True])
def test_what_finds_no_room_on_the_host_is_computed_again_once(together: bool) -> None:
    """Two forks share the lost pages: whoever comes first computes them for both."""
    async def test() -> None:
        bench = Bench(pages=12, host_pages=2)
        first = bench.file()
        bench.forward(first, list(range(100, 116)))
        await bench.settle()
        fork = first.fork()
        bench.process.files.add(fork)
        large = bench.decode(bench.file(), list(range(40)), 3)    # eleven pages: three must leave, two fit on the host
        await bench.settle()
        assert large.take().tokens == unhurried(list(range(40)), 3)
        assert (bench.pager.swapped_out, bench.pager.discarded) == (2, 1)
        runs = []
        for file, token in ((first, 7), (fork, 8)):
            runs.append((token, bench.decode(file, [token], 5)))
            if not together:
                await bench.settle()
        await bench.settle()
        for token, run in runs:
            assert run.take().tokens == unhurried([*range(100, 116), token], 5)
        assert bench.engine.tokens_recomputed == 4
        bench.files.recount()
        bench.pager.recount()
        bench.check_all_returned()
    in_loop(test)


def test_a_lost_page_is_not_computed_by_a_fork_that_has_only_its_beginning() -> None:
    async def test() -> None:
        bench = Bench(pages=12, host_pages=0)
        first = bench.file()
        bench.forward(first, list(range(100, 112)))
        await bench.settle()
        large = bench.file()
        bench.decode(large, list(range(40)), 3)                   # all but one page of the first are lost
        await bench.settle()
        large.truncate(0)
        fork = first.fork()
        bench.process.files.add(fork)
        fork.truncate(10)
        for file, held, token in ((fork, 10, 8), (first, 12, 7)):
            run = bench.decode(file, [token], 5)
            await bench.settle()
            assert run.take().tokens == unhurried([*range(100, 100 + held), token], 5)
        assert bench.engine.tokens_recomputed > 8
        bench.files.recount()
        bench.pager.recount()
        bench.check_all_returned()
    in_loop(test)


@pytest.mark.parametrize("seed", range(20))
def test_a_working_set_four_times_the_device(seed: int) -> None:
    """Programs take turns; each must say what it would have said alone."""
    async def test() -> None:
        chosen = random.Random(seed)
        bench = Bench(pages=24, host_pages=chosen.choice([0, 9, 96]), run_ahead=chosen.choice([1, 2, 4]),
                      step_tokens=chosen.choice([5, 64]))
        contexts = {bench.file(): [900 + n] for n in range(12)}
        shared = bench.file()
        bench.forward(shared, [5, 6, 7, 8, 9, 10])
        await bench.settle()
        for _ in range(30):
            turns = chosen.sample(list(contexts), chosen.randint(1, 4))
            runs = []
            for file in turns:
                held = contexts[file]
                new = [chosen.randrange(900) for _ in range(chosen.randint(1, 9))]
                held += new
                runs.append((file, bench.decode(file, held[len(file):], chosen.randint(1, 4))))
            await bench.settle()
            for file, run in runs:
                said = run.take().tokens
                assert said == unhurried(contexts[file], len(said))
                contexts[file] += said
                if len(contexts[file]) > 30:
                    keep = chosen.randint(1, 10)
                    file.truncate(keep)
                    del contexts[file][keep:]
            bench.files.recount()
        assert bench.pager.swapped_in + bench.engine.tokens_recomputed > 0
        bench.check_all_returned()
    in_loop(test)
