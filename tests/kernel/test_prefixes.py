"""Prompts that begin alike share pages: found by their tokens, per user, as long as nobody needs the room."""

from __future__ import annotations

from cadenza.kvfs.file import File
from tests.kernel.test_engine import Bench, in_loop, unhurried

PROMPT = list(range(40, 62))         # 22 tokens: five full pages of four


def test_the_second_prompt_computes_only_what_differs() -> None:
    async def test() -> None:
        bench = Bench()
        first = bench.decode(bench.file(), PROMPT, 3)
        await bench.settle()
        other = [*PROMPT[:14], 7, 8, 9]
        second = bench.decode(bench.file(), other, 3)
        await bench.settle()
        said, progress = first.take(), second.take()
        assert (said.computed_tokens, said.reused_tokens) == (22, 0)
        assert (progress.computed_tokens, progress.reused_tokens) == (5, 12)
        assert progress.tokens == unhurried(other, 3)
        assert second.file.shared_pages() == 3
        bench.check_all_returned()
    in_loop(test)


def test_what_is_asked_of_a_row_is_computed() -> None:
    async def test() -> None:
        bench = Bench()
        for samples, reused in [((21,), 0), ((21,), 20), ((9, 21), 8), ((0,), 0), ((), 20)]:
            done = bench.forward(bench.file(), PROMPT, samples)
            await bench.settle()
            answer = done.take()
            assert (answer.reused_tokens, answer.computed_tokens) == (reused, 22 - reused)
            assert answer.tokens == [unhurried(PROMPT[: row + 1], 1)[0] for row in samples]
        bench.check_all_returned()
    in_loop(test)


def test_a_prompt_stays_known_after_its_file_until_the_room_is_needed() -> None:
    async def test() -> None:
        bench = Bench(pages=16)
        file = bench.file()
        bench.decode(file, PROMPT, 1)
        await bench.settle()
        close(bench, file)
        assert bench.files.pool.used == 0
        again = bench.forward(bench.file(), PROMPT, (21,))
        await bench.settle()
        assert again.take().reused_tokens == 20
        close(bench, again.file)
        long = bench.decode(bench.file(), list(range(500, 563)), 1)      # all 16 pages
        await bench.settle()
        assert long.take().tokens == unhurried(list(range(500, 563)), 1)
        close(bench, long.file)
        last = bench.decode(bench.file(), PROMPT, 2)
        await bench.settle()
        assert last.take()[:4] == (unhurried(PROMPT, 2), "length", 22, 0)
        bench.check_all_returned()
    in_loop(test)


def test_what_a_run_said_is_known_too() -> None:
    async def test() -> None:
        bench = Bench()
        run = bench.decode(bench.file(), PROMPT, 12)
        await bench.settle()
        told = [*PROMPT, *run.take().tokens]
        next_turn = bench.decode(bench.file(), [*told, 3], 2)
        await bench.settle()
        assert next_turn.take()[:4] == (unhurried([*told, 3], 2), "length", 3, 32)
        bench.check_all_returned()
    in_loop(test)


def test_another_users_prompt_is_not_found() -> None:
    async def test() -> None:
        bench = Bench()
        bench.decode(bench.file(), PROMPT, 1)
        await bench.settle()
        stranger = bench.files.create("bob")
        bench.process.files.add(stranger)
        run = bench.decode(stranger, PROMPT, 1)
        await bench.settle()
        assert run.take().reused_tokens == 0
        bench.check_all_returned()
    in_loop(test)


def test_a_page_that_is_written_to_again_is_no_longer_found() -> None:
    async def test() -> None:
        bench = Bench()
        file = bench.file()
        bench.forward(file, PROMPT)
        await bench.settle()
        file.truncate(6)
        bench.forward(file, [1, 2, 3])
        await bench.settle()
        for prompt, reused in [(PROMPT, 4), ([*PROMPT[:6], 1, 2, 3], 8)]:
            run = bench.decode(bench.file(), prompt, 2)
            await bench.settle()
            assert run.take()[:4] == (unhurried(prompt, 2), "length", len(prompt) - reused, reused)
        bench.check_all_returned()
    in_loop(test)


def test_composed_and_relocated_files_are_no_prompts() -> None:
    async def test() -> None:
        bench = Bench()
        whole = bench.file()
        bench.forward(whole, PROMPT)
        await bench.settle()
        bench.files.prefixes.forget(whole.pages[0])
        moved = whole.fork()
        moved.relocate(4)
        bench.process.files.add(moved)
        bench.forward(moved, PROMPT)
        beside = bench.file()
        bench.forward(beside, PROMPT, reads=(whole,))
        await bench.settle()
        assert len(bench.files.prefixes) == 0
        assert (whole.exact, moved.exact, beside.exact) == (True, False, False)
        run = bench.decode(bench.file(), PROMPT, 1)
        await bench.settle()
        assert run.take().reused_tokens == 0
        bench.check_all_returned()
    in_loop(test)


def close(bench: Bench, file: File) -> None:
    files = bench.process.files
    files.close(next(number for number, (found, _) in files._open.items() if found is file))
