"""Decodes in columns: they say what they would have said, and whoever looks at their files sees them as they are."""

from __future__ import annotations

import asyncio

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from cadenza.kernel.runs import Run
from cadenza.kvfs.page_table import PageTable
from cadenza.kvfs.pool import PagePool
from tests.kernel.test_engine import Bench, in_loop, unhurried

PROMPTS = [[5, 6, 7], [9] * 6, [1], [2, 3, 4, 5]]


async def answer(bench: Bench, steps: int) -> None:
    """That many, as long as any are under way."""
    for _ in range(steps):
        await asyncio.sleep(0)
        if bench.link.waiting:
            bench.link.answer()
    await asyncio.sleep(0)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 12), st.integers(0, 3)), max_size=6), st.integers(1, 3))
def test_who_looks_at_a_file_changes_nothing(looks: list[tuple[int, int]], run_ahead: int) -> None:
    async def scene() -> None:
        bench = Bench(run_ahead=run_ahead)
        runs = [bench.decode(bench.file(), prompt, 40) for prompt in PROMPTS]
        for steps, looked_at in looks:
            await answer(bench, steps)
            run = runs[looked_at]
            seen = run.file.tokens().tolist()
            known = [*PROMPTS[looked_at], *run.tokens]
            assert [token for token in seen if token >= 0] == known[: len(seen)]
            assert len(run.file.pages) >= -(-len(seen) // 4)
            bench.engine.look_again()
        await bench.settle()
        assert [run.tokens for run in runs] == [unhurried(prompt, 40) for prompt in PROMPTS]
        assert [run.file.tokens().tolist() for run in runs] == [
            [*prompt, *run.tokens[:-1]] for prompt, run in zip(PROMPTS, runs, strict=True)]
        bench.check_all_returned()

    in_loop(scene)


def test_a_run_that_goes_on_is_steady_until_somebody_looks() -> None:
    async def scene() -> None:
        bench = Bench()
        run = bench.decode(bench.file(), PROMPTS[0], 40)
        await answer(bench, 4)
        assert run.steady
        assert len(run.file) == 3 + bench.engine.steps_done + bench.engine.depth - 1
        assert not run.steady
        await answer(bench, 2)
        assert run.steady

    in_loop(scene)


def test_a_page_taken_in_advance_is_given_back() -> None:
    """Wherever a run is stopped, its file has the pages that its tokens need."""
    async def scene(steps: int) -> None:
        bench = Bench()
        file = bench.file()
        run = bench.decode(file, PROMPTS[0], 40)
        await answer(bench, steps)
        run.take()
        run.stop()
        await bench.settle()
        assert len(file.pages) == -(-len(file) // 4)
        assert file.tokens().tolist() == [*PROMPTS[0], *run.tokens][: len(file)]
        bench.check_all_returned()

    for steps in range(1, 12):
        in_loop(lambda steps=steps: scene(steps))  # type: ignore[misc]


def test_a_lane_that_is_anothers_now_draws_as_that_one_asks() -> None:
    async def scene() -> None:
        bench = Bench()
        bench.decode(bench.file(), PROMPTS[0], 6)
        await bench.settle()
        run = bench.decode(bench.file(), PROMPTS[1], 6, temperature=0.5)
        await bench.settle()
        warm = [batch.temperature.tolist() for batch in bench.device.batches if len(batch.temperature)]
        assert warm == [[0.0]] * 6 + [[0.5]] * 6
        assert run.over

    in_loop(scene)


def test_rows_without_a_page_ask_as_any_other() -> None:
    """Fewer pages than all need at once: some make room for others, and all come to their end."""
    async def scene() -> None:
        bench = Bench(pages=14)
        runs: list[Run] = [bench.decode(bench.file(), [n + 1] * 3, 24) for n in range(4)]
        await bench.settle()
        assert [run.tokens for run in runs] == [unhurried([n + 1] * 3, 24) for n in range(4)]
        assert bench.engine.preemptions > 0
        bench.check_all_returned()

    in_loop(scene)


@given(st.integers(0, 150), st.integers(1, 150), st.booleans())
def test_appended_all_at_once_or_one_by_one_is_the_same(before: int, count: int, gap: bool) -> None:
    tables = []
    for at_once in (True, False):
        pool = PagePool(200, 2)
        table = PageTable(pool)
        table.make_room(pool.allocate(-(-before // 2)))
        table.extend(np.arange(before, dtype=np.int32), np.arange(before, dtype=np.int32))
        pages, tokens, position = pool.allocate(table.pages_for(count)), list(range(count)), before + gap
        if at_once:
            for page in [*pages, *pool.allocate(1)]:                # the last for nothing
                table.add_page(page)
            table.append_all(tokens, position)
        else:
            table.make_room(pages)
            table.extend(np.array(tokens, np.int32), np.arange(position, position + count, dtype=np.int32))
        assert pool.used == table.page_count
        tables.append((table.count, table.straight, table.next_position, table.page_count,
                       table.tokens(0, table.count).tolist(), table.positions(0, table.count).tolist()))
    assert tables[0] == tables[1]
