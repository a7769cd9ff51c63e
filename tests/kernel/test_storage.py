"""Files outlive the kernel: sync, an end of any kind, a new kernel over the same directory."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cadenza.kernel.limits import STAGING_PAGES
from cadenza.kernel.storage import Storage
from cadenza.kvfs.errors import Damaged, Invalid, LimitExceeded, NotFound, Unsupported
from cadenza.kvfs.file import File
from cadenza.kvfs.pool import ABSENT
from cadenza.kvfs.records import Layout
from cadenza.kvfs.store import Store
from cadenza.kvfs.tiers import Tiers
from tests.kernel.test_engine import Bench, in_loop, unhurried

WRITE, READ = frozenset({"read", "append", "create"}), frozenset({"read", "append"})
FINGERPRINT = "f" * 64


class StoredBench(Bench):
    """A bench with a directory. `end` leaves it as kill -9 would: nothing is closed but the lock."""

    def __init__(self, directory: Path, *, host_pages: int = 16, limit: int = 1 << 20, model: str = FINGERPRINT,
                 weights: str = "", **options: Any) -> None:
        self._directory, self._model, self._limit, self._weights = directory, model, limit, weights
        super().__init__(host_pages=host_pages + STAGING_PAGES, **options)
        self.storage = Storage(self.store, self.pager, self.link.host)
        self.storage.restore()

    def new_tiers(self) -> Tiers:
        facts = self.device.facts
        layout = Layout(self._model, facts.page_bytes, facts.page_tokens, self._weights)
        self.store = Store(self._directory, layout, self._limit)
        return Tiers(self.files.pool, facts.host_pages - STAGING_PAGES, self.store)

    def open(self, path: str, flags: frozenset[str] = READ) -> File:
        file = self.files.open("ada", path, flags)
        self.process.files.add(file)
        return file

    async def sync(self, file: File) -> None:
        await self.done(self.storage.sync(file))

    async def done(self, waitable: Any) -> Any:
        while not waitable.ready:
            await self.settle()
            await asyncio.sleep(0.001)
        return waitable.take()

    async def say(self, file: File, tokens: list[int], most: int) -> list[int]:
        run = self.decode(file, tokens, most)
        while not run.over:
            await self.settle()
            await asyncio.sleep(0.001)
        return run.take().tokens

    async def end(self) -> None:
        self.check()
        await self.storage.close()

    def check(self) -> None:
        self.files.recount()
        self.pager.recount()
        self.storage.recount()


def test_a_synced_file_goes_on_where_it_was(tmp_path: Path) -> None:
    async def test() -> None:
        bench = StoredBench(tmp_path)
        file = bench.open("a/b", WRITE)
        said = await bench.say(file, list(range(30)), 5)
        assert not file.durable
        await bench.sync(file)
        assert file.durable
        unsynced = bench.open("gone", WRITE)
        await bench.say(unsynced, [1, 2], 1)
        await bench.say(file, [said[-1], 77], 2)
        assert not file.durable                          # what is on disk is the file as it was synced
        await bench.end()

        again = StoredBench(tmp_path)
        with pytest.raises(NotFound):
            again.open("gone")
        file = again.open("/home/ada/a/b")
        assert file.tokens().tolist() == [*range(30), *said[:-1]]
        assert (file.durable, file.exact, file.contiguous) == (True, True, True)
        assert all(again.files.pool.frames[page] == ABSENT for page in file.pages)
        assert await again.say(file, [said[-1]], 4) == unhurried([*range(30), *said], 4)
        assert sum(len(batch.tokens) for batch in again.device.batches) == 4
        await again.end()
    in_loop(test)


def test_what_was_lost_is_computed_again_before_it_is_synced(tmp_path: Path) -> None:
    async def test() -> None:
        bench = StoredBench(tmp_path, host_pages=0, pages=12)
        file = bench.open("a", WRITE)
        said = await bench.say(file, list(range(30)), 3)
        large = bench.open("b", WRITE)
        await bench.say(large, list(range(200, 232)), 2)
        assert bench.pager.tiers.lost
        await bench.sync(file)
        assert bench.engine.tokens_recomputed > 0
        await bench.end()

        again = StoredBench(tmp_path)
        file = again.open("a")
        assert await again.say(file, [said[-1]], 4) == unhurried([*range(30), *said], 4)
        await again.end()
    in_loop(test)


def test_composed_files_come_back_composed(tmp_path: Path) -> None:
    async def test() -> None:
        bench = StoredBench(tmp_path)
        whole = bench.open("whole", WRITE)
        await bench.say(whole, list(range(40)), 1)
        piece = bench.files.concat("ada", [whole.extract([(3, 9), (20, 11)]), whole])
        piece.relocate(5)
        piece.hide(4, 8)
        bench.process.files.add(piece)
        bench.files.link("ada", piece, "/shared/piece")
        bench.files.link("ada", piece, "other")
        bench.files.grant("ada", piece, "bob", frozenset({"read", "append"}))
        await bench.say(piece, [1, 2, 3], 2)
        for file in (whole, piece):
            await bench.sync(file)
        slots = bench.store.statistics()["disk_pages"]
        assert slots <= len(set(whole.pages) | set(piece.pages)) + 3      # edges that may still grow are written twice
        seen = await bench.say(piece.fork(), [9], 3)
        held = (piece.tokens().tolist(), piece.positions().tolist(), piece.hidden_tokens)
        await bench.end()

        again = StoredBench(tmp_path)
        piece = again.open("other")
        assert piece.paths == ["/shared/piece", "/home/ada/other"]
        assert (piece.tokens().tolist(), piece.positions().tolist(), piece.hidden_tokens) == held
        assert piece.access.of("ada", "bob") == {"read", "append"}
        assert not piece.exact
        assert await again.say(piece, [9], 3) == seen
        assert again.files.recount() is None
        await again.end()
    in_loop(test)


def test_names_of_durable_files_follow_at_once(tmp_path: Path) -> None:
    async def test() -> None:
        bench = StoredBench(tmp_path)
        for name in ("a", "b", "c"):
            file = bench.open(name, WRITE)
            await bench.say(file, [ord(name), 1, 2, 3, 4], 1)
            await bench.sync(file)
        bench.files.rename("ada", "a", "deep/er/a")
        bench.files.unlink("ada", "b")
        bench.files.rename("ada", "c", "deep/er/a2")
        bench.files.rename("ada", "deep/er/a2", "deep/er/a")      # replaces
        await bench.end()
        again = StoredBench(tmp_path)
        assert again.open("deep/er/a").tokens().tolist()[0] == ord("c")
        for gone in ("a", "b", "c", "deep/er/a2"):
            with pytest.raises(NotFound):
                again.open(gone)
        assert len(again.store.files) == 1
        await again.end()
    in_loop(test)


def test_a_file_larger_than_the_host_tier_and_staging_comes_back(tmp_path: Path) -> None:
    async def test() -> None:
        tokens = [n % 900 for n in range(1800)]
        bench = StoredBench(tmp_path, pages=600, context_tokens=4000, host_pages=2)
        file = bench.open("long", WRITE)
        await bench.say(file, tokens, 1)
        await bench.sync(file)
        await bench.end()
        again = StoredBench(tmp_path, pages=600, context_tokens=4000, host_pages=2)
        assert await again.say(again.open("long"), [5], 3) == unhurried([*tokens, 5], 3)
        await again.end()
    in_loop(test)


def test_durable_pages_leave_the_device_without_being_copied_and_volatile_ones_are_spilled(tmp_path: Path) -> None:
    async def test() -> None:
        bench = StoredBench(tmp_path, pages=16, host_pages=4)
        files = [bench.open(f"f{n}", WRITE) for n in range(4)]
        texts = [[100 * n + i for i in range(22)] for n in range(4)]
        said: list[list[int]] = []
        for n, (file, text) in enumerate(zip(files, texts, strict=True)):
            said.append(await bench.say(file, text, 2))
            if n == 0:
                await bench.sync(file)
        for _ in range(3):
            for n, file in enumerate(files):
                more = [n + 1]
                context = texts[n] + said[n] + more
                answer = await bench.say(file, [*said[n][-1:], *more], 2)
                assert answer == unhurried(context, 2)
                texts[n], said[n] = context, answer
        bench.check()
        assert bench.pager.statistics()["on_disk"] > 0
        await bench.end()
    in_loop(test)


def test_a_damaged_page_fails_the_pass_that_reads_it_and_says_so(tmp_path: Path) -> None:
    async def test() -> None:
        bench = StoredBench(tmp_path)
        for name in ("a", "b"):
            file = bench.open(name, WRITE)
            await bench.say(file, [ord(name) + n for n in range(17)], 1)
            await bench.sync(file)
        await bench.end()
        (segment,) = (tmp_path / "segments").glob("*/000000")
        data = bytearray(segment.read_bytes())
        data[4096 + 40] ^= 4                             # slot 1: of a
        segment.write_bytes(data)
        again = StoredBench(tmp_path)
        with pytest.raises(Damaged, match="fsck"):
            await again.say(again.open("a"), [1], 1)
        assert await again.say(again.open("b"), [1], 1) == unhurried([*range(98, 115), 1], 1)
        await again.end()
    in_loop(test)


@pytest.mark.parametrize(("changed", "words"), [
    ({"model": "e" * 64}, r"f{12}.*e{12}"),
    ({"weights": "int8"}, r"model f{12}, .*not model f{12} with int8 weights"),
])
def test_a_file_of_another_model_is_listed_and_refused_with_both_fingerprints(
    tmp_path: Path, changed: dict[str, str], words: str
) -> None:
    async def test() -> None:
        bench = StoredBench(tmp_path)
        file = bench.open("a", WRITE)
        await bench.say(file, [1, 2, 3], 1)
        await bench.sync(file)
        await bench.end()
        other = StoredBench(tmp_path, **changed)
        assert [entry.name for entry in other.files.entries("ada", "/home/ada")] == ["a"]
        with pytest.raises(Unsupported, match=words):
            other.open("a")
        other.files.rename("ada", "a", "kept")
        await other.end()
        again = StoredBench(tmp_path)
        assert again.open("kept").tokens().tolist() == [1, 2, 3]
        await again.end()
    in_loop(test)


def test_what_cannot_be_synced_is_told(tmp_path: Path) -> None:
    async def test() -> None:
        bench = StoredBench(tmp_path, limit=3 * 32)
        with pytest.raises(Invalid, match="link it to a path"):
            bench.storage.sync(bench.file())
        file = bench.open("a", WRITE)
        await bench.say(file, list(range(17)), 1)
        with pytest.raises(LimitExceeded, match="at most 3 pages"):
            await bench.sync(file)
        file.truncate(12)
        await bench.sync(file)
        doomed = bench.storage.sync(file)
        bench.files.unlink("ada", "a")
        with pytest.raises(Invalid, match="lost its last name"):
            await bench.done(doomed)
        assert bench.store.files == {}
        await bench.end()
    in_loop(test)


def test_the_same_images_come_back(tmp_path: Path) -> None:
    async def test() -> None:
        bench = StoredBench(tmp_path)
        file = bench.open("a", WRITE)
        await bench.say(file, list(range(16)), 1)
        await bench.sync(file)
        frames = bench.files.pool.frames[file.pages]
        before = bench.device.held[frames].copy()
        await bench.end()
        again = StoredBench(tmp_path)
        await again.say(again.open("a"), [3], 1)
        frames = again.files.pool.frames[again.open("a").pages[:4]]
        np.testing.assert_array_equal(again.device.held[frames], before)
        await again.end()
    in_loop(test)


@pytest.mark.parametrize("turns", range(12))
def test_what_is_renamed_or_unlinked_while_it_is_synced_again_stays_so(tmp_path: Path, turns: int) -> None:
    """Whenever that is: between any two steps of the sync, or amid its writing."""
    async def test() -> None:
        bench = StoredBench(tmp_path)
        for name in ("gone", "moved", "kept"):
            file = bench.open(name, WRITE)
            await bench.say(file, [ord(name[0]), 2, 3], 1)
            await bench.sync(file)
            await bench.say(file, [4, 5], 1)
        syncs = [bench.storage.sync(bench.open(name)) for name in ("gone", "moved")]
        for _ in range(turns):
            await bench.settle()
            await asyncio.sleep(0.0005)
        bench.files.unlink("ada", "gone")
        bench.files.rename("ada", "moved", "kept")
        for sync in syncs:
            with contextlib.suppress(Invalid):
                await bench.done(sync)
        await bench.end()
        again = StoredBench(tmp_path)
        assert [entry.name for entry in again.files.entries("ada", "/home/ada")] == ["kept"]
        assert again.open("kept").tokens().tolist()[0] == ord("m")
        again.check()
        await again.end()
    in_loop(test)
