"""Durable files: what was committed is there after a reopen, a cut journal, a compaction; damage is found."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from cadenza.kvfs.errors import Busy, Damaged, LimitExceeded
from cadenza.kvfs.journal import MAGIC
from cadenza.kvfs.records import FileRecord, Layout, Naming, decode, encode
from cadenza.kvfs.store import Store
from tests.kvfs.storing import LAYOUT, LIMIT, contents, image, put, record_for


class StoresBehaveAsDicts(RuleBasedStateMachine):
    """Against a dict from number to names and the seeds of the pages."""

    def __init__(self) -> None:
        super().__init__()
        self.directory = tempfile.TemporaryDirectory()
        self.path = Path(self.directory.name)
        self.store = Store(self.path, LAYOUT, LIMIT)
        self.known: dict[int, tuple[tuple[str, ...], list[int]]] = {}

    @rule(seeds=st.lists(st.integers(0, 1000), max_size=5))
    def commit_new(self, seeds: list[int]) -> None:
        number = self.store.new_number()
        put(self.store, number, f"/home/ada/{number}", seeds)
        self.known[number] = ((f"/home/ada/{number}",), seeds)

    @precondition(lambda self: self.known)
    @rule(which=st.integers(0, 99), seeds=st.lists(st.integers(0, 1000), max_size=5))
    def commit_again(self, which: int, seeds: list[int]) -> None:
        number = self.pick(which)
        path = self.known[number][0][0]
        put(self.store, number, path, seeds)
        self.known[number] = ((path,), seeds)

    @precondition(lambda self: self.known)
    @rule(which=st.integers(0, 99))
    def commit_a_fork(self, which: int) -> None:
        """Two files over the same slots."""
        source, number = self.pick(which), self.store.new_number()
        pages = [page for part in self.store.files[source].parts for page in part.pages]
        seeds = self.known[source][1]
        record = record_for(number, f"/home/ada/{number}", pages, sum(seeds))
        self.store.adopt(record, self.store.commit(record))
        self.known[number] = ((f"/home/ada/{number}",), seeds)

    @precondition(lambda self: self.known)
    @rule(which=st.integers(0, 99), names=st.lists(st.sampled_from("abc"), min_size=1, max_size=2, unique=True))
    def rename(self, which: int, names: list[str]) -> None:
        number = self.pick(which)
        paths = tuple(f"/home/ada/{name}/{number}" for name in names)
        self.store.rename(number, Naming("ada", paths, others=frozenset({"read"}), grants={"bob": frozenset()}))
        self.known[number] = (paths, self.known[number][1])

    @precondition(lambda self: self.known)
    @rule(which=st.integers(0, 99))
    def drop(self, which: int) -> None:
        number = self.pick(which)
        self.store.drop(number)
        del self.known[number]

    @rule()
    def compact(self) -> None:
        self.store.compact()

    @rule()
    def reopen(self) -> None:
        self.store.close()
        self.store = Store(self.path, LAYOUT, LIMIT)

    def pick(self, which: int) -> int:
        return list(self.known)[which % len(self.known)]

    @invariant()
    def it_holds_what_the_dict_holds(self) -> None:
        found = {number: (record.naming.paths, contents(self.store, record))
                 for number, record in self.store.files.items()}
        assert found == {number: (paths, [image(seed).tobytes() for seed in seeds])
                         for number, (paths, seeds) in self.known.items()}
        self.store.recount([])

    def teardown(self) -> None:
        self.store.close()
        self.directory.cleanup()


TestStores = StoresBehaveAsDicts.TestCase
TestStores.settings = settings(max_examples=60, stateful_step_count=25, deadline=None)


def test_a_journal_cut_at_every_byte_leaves_a_prefix_of_what_happened(tmp_path: Path) -> None:
    store = Store(tmp_path / "a", LAYOUT, LIMIT)
    journal = tmp_path / "a" / "journal"
    states: list[tuple[int, dict[int, FileRecord]]] = [(journal.stat().st_size, {})]
    for step in range(9):
        if step in (3, 7):
            store.rename(1, Naming("ada", (f"/home/ada/moved{step}",)))
        elif step == 5:
            store.drop(2)
        else:
            put(store, step % 3 + 1, f"/home/ada/{step}", [step, step + 100])
        states.append((journal.stat().st_size, dict(store.files)))
    store.close()
    whole = journal.read_bytes()
    for end in range(len(MAGIC), len(whole) + 1):
        journal.write_bytes(whole[:end])
        reopened = Store(tmp_path / "a", LAYOUT, LIMIT)
        expected = [files for size, files in states if size <= end][-1]
        assert {n: (r.naming, r.slots) for n, r in reopened.files.items()} == {
            n: (r.naming, r.slots) for n, r in expected.items()}
        reopened.recount([])
        reopened.close()
        assert journal.stat().st_size == max(size for size, _ in states if size <= end)


def test_a_changed_byte_in_a_page_is_found_and_told(tmp_path: Path) -> None:
    store = Store(tmp_path, LAYOUT, LIMIT)
    record = put(store, 1, "/home/ada/a", [1, 2, 3])
    (segment,) = (tmp_path / "segments").glob("*/000000")
    data = bytearray(segment.read_bytes())
    data[4096 + LAYOUT.page_bytes + 7] ^= 1
    segment.write_bytes(data)
    with pytest.raises(Damaged, match=r"slot 1 of .*fsck"):
        contents(store, record)
    store.close()


def test_a_changed_byte_in_the_middle_of_the_journal_is_not_taken_for_a_crash(tmp_path: Path) -> None:
    store = Store(tmp_path, LAYOUT, LIMIT)
    for number in (1, 2, 3):
        put(store, number, f"/home/ada/{number}", [number])
    store.close()
    journal = tmp_path / "journal"
    data = bytearray(journal.read_bytes())
    data[30] ^= 1
    journal.write_bytes(data)
    with pytest.raises(Damaged, match="fsck"):
        Store(tmp_path, LAYOUT, LIMIT)
    assert journal.read_bytes() == data


def test_a_second_daemon_is_refused(tmp_path: Path) -> None:
    store = Store(tmp_path, LAYOUT, LIMIT)
    with pytest.raises(Busy, match="another daemon"):
        Store(tmp_path, LAYOUT, LIMIT)
    store.close()
    Store(tmp_path, LAYOUT, LIMIT).close()


def test_the_limit_is_inclusive_and_what_is_replaced_is_used_again(tmp_path: Path) -> None:
    store = Store(tmp_path, LAYOUT, 4 * LAYOUT.page_bytes)
    put(store, 1, "/home/ada/a", [1, 2])
    put(store, 1, "/home/ada/a", [3, 4])          # both are there until the second is durable
    put(store, 2, "/home/ada/b", [5, 6])
    with pytest.raises(LimitExceeded, match="at most 4 pages"):
        store.allocate(1)
    store.recount([])
    assert store.statistics()["disk_pages"] == 4
    store.close()


def test_files_of_another_model_are_kept_and_not_touched(tmp_path: Path) -> None:
    store = Store(tmp_path, LAYOUT, LIMIT)
    mine = put(store, 1, "/home/ada/a", [1, 2])
    store.close()
    other = Store(tmp_path, Layout("b" * 64, 128, 8), LIMIT)
    assert other.files[1].layout == LAYOUT
    assert other.allocate(2) == [0, 1]
    other.write([0, 1], np.ones((2, 128), np.uint8))
    other.close()
    again = Store(tmp_path, LAYOUT, LIMIT)
    assert contents(again, mine) == [image(1).tobytes(), image(2).tobytes()]
    again.close()


def test_the_journal_is_rewritten_when_most_of_it_is_past(tmp_path: Path) -> None:
    store = Store(tmp_path, LAYOUT, LIMIT)
    long = record_for(1, "/home/ada/a", [], 0)
    big = Naming("ada", ("/home/ada/" + "x" * 200,), grants={f"user{n}": frozenset({"read"}) for n in range(3000)})
    for _ in range(60):
        store.adopt(long, store.commit(long.named(big)))
    assert store.statistics()["journal_bytes"] < 1 << 20
    store.close()
    again = Store(tmp_path, LAYOUT, LIMIT)
    assert again.files[1].naming == big
    again.close()


def test_a_record_is_read_as_it_was_written() -> None:
    record = record_for(7, "/home/ada/ä b", [], 3).named(Naming("ada", ("/x",), grants={"bob": frozenset({"read"})}))
    assert decode(encode(record)) == record
    with pytest.raises(ValueError, match="2 bytes too many"):
        decode(encode(record) + b"xx")
