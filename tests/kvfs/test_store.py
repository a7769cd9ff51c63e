"""Durable files: what was committed is there after a reopen and a compaction; names change at once and together."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from cadenza.kvfs.errors import Busy, Damaged, LimitExceeded
from cadenza.kvfs.fsck import check
from cadenza.kvfs.records import Layout, Naming
from cadenza.kvfs.store import SHRINK_SLOTS, Store
from tests.kvfs.storing import LAYOUT, LIMIT, NO_NAME, contents, flip, image, put, record_for, stage, state


class StoresBehaveAsDicts(RuleBasedStateMachine):
    """Against a dict from number to names and the seeds of the pages. A reopened store is like a killed one: nothing
    is flushed that `commit` or `change` did not write."""

    def __init__(self) -> None:
        super().__init__()
        self.directory = tempfile.TemporaryDirectory()
        self.path = Path(self.directory.name) / "kv"
        self.store = Store(self.path, LAYOUT, LIMIT)
        self.known: dict[int, tuple[tuple[str, ...], list[int]]] = {}
        self.used: set[int] = set()

    @rule(seeds=st.lists(st.integers(0, 1000), max_size=5))
    def commit_new(self, seeds: list[int]) -> None:
        number = self.store.new_number()
        assert number not in self.used, "a number was used again"
        self.used.add(number)
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
        seeds = self.known[source][1]
        self.store.stage(record_for(number, f"/home/ada/{number}", self.store.files[source].pages, sum(seeds)))
        assert self.store.commit(number)
        self.used.add(number)
        self.known[number] = ((f"/home/ada/{number}",), seeds)

    @precondition(lambda self: self.known)
    @rule(which=st.integers(0, 99), seeds=st.lists(st.integers(0, 1000), max_size=5), keeps=st.booleans())
    def change_while_it_is_committed(self, which: int, seeds: list[int], keeps: bool) -> None:
        """What happens to a staged file holds for its next contents too."""
        number = self.pick(which)
        stage(self.store, number, "/home/ada/as/it/was", seeds)
        paths = (f"/home/ada/meanwhile/{number}",) if keeps else ()
        self.store.change({number: Naming("ada", paths)})
        assert self.store.commit(number) is keeps
        self.known.pop(number)
        if keeps:
            self.known[number] = (paths, seeds)

    @precondition(lambda self: self.known)
    @rule(which=st.integers(0, 99), other=st.integers(0, 99))
    def replace(self, which: int, other: int) -> None:
        """One file takes the name of another, which is no more if it was its last."""
        number, loser = self.pick(which), self.pick(other)
        if number == loser:
            return
        name, *left = self.known[loser][0]
        self.store.change({number: Naming("ada", (name,), grants={"bob": frozenset()}), loser: Naming("ada", (*left,))})
        self.known[number] = ((name,), self.known[number][1])
        if left:
            self.known[loser] = ((*left,), self.known[loser][1])
        else:
            del self.known[loser]

    @precondition(lambda self: self.known)
    @rule(which=st.integers(0, 99), names=st.lists(st.sampled_from("abc"), max_size=2, unique=True))
    def rename(self, which: int, names: list[str]) -> None:
        number = self.pick(which)
        paths = tuple(f"/home/ada/{name}/{number}" for name in names)
        self.store.change({number: Naming("ada", paths, others=frozenset({"read"})), 10_000: NO_NAME})
        self.known[number] = (paths, self.known[number][1])
        if not names:
            del self.known[number]

    @rule()
    def compact(self) -> None:
        self.store.compact()

    @rule()
    def flush(self) -> None:
        self.store.flush()

    @rule()
    def reopen(self) -> None:
        self.store.close()
        assert check(self.path).problems == []
        self.store = Store(self.path, LAYOUT, LIMIT)

    def pick(self, which: int) -> int:
        return list(self.known)[which % len(self.known)]

    @invariant()
    def it_holds_what_the_dict_holds(self) -> None:
        assert state(self.store) == {number: (paths, [image(seed).tobytes() for seed in seeds])
                                     for number, (paths, seeds) in self.known.items()}
        self.store.recount([])

    def teardown(self) -> None:
        self.store.close()
        self.directory.cleanup()


TestStores = StoresBehaveAsDicts.TestCase
TestStores.settings = settings(max_examples=60, stateful_step_count=25, deadline=None)


def test_a_changed_byte_in_a_page_is_found_and_told(tmp_path: Path) -> None:
    store = Store(tmp_path, LAYOUT, LIMIT)
    record = put(store, 1, "/home/ada/a", [1, 2, 3])
    (segment,) = (tmp_path / "segments").glob("*/000000")
    flip(segment, 4096 + LAYOUT.page_bytes + 7)
    with pytest.raises(Damaged, match=r"slot 1 in .* page of /home/ada/a: .*fsck"):
        contents(store, record)
    segment.unlink()
    store.close()
    store = Store(tmp_path, LAYOUT, LIMIT)
    with pytest.raises(Damaged, match="slot 0 in"):
        contents(store, record)
    assert not segment.exists()
    store.close()


def test_a_second_daemon_is_refused(tmp_path: Path) -> None:
    store = Store(tmp_path, LAYOUT, LIMIT)
    with pytest.raises(Busy, match="another daemon"):
        Store(tmp_path, LAYOUT, LIMIT)
    store.close()
    store.close()
    Store(tmp_path, LAYOUT, LIMIT).close()


def test_a_store_that_cannot_be_opened_lets_go_of_its_lock(tmp_path: Path) -> None:
    Store(tmp_path, LAYOUT, LIMIT).close()
    flip(tmp_path / "journal", 9)
    for _ in range(2):
        with pytest.raises(Damaged, match="does not begin as a journal"):
            Store(tmp_path, LAYOUT, LIMIT)


def test_a_lost_journal_does_not_cost_the_pages(tmp_path: Path) -> None:
    store = Store(tmp_path, LAYOUT, LIMIT)
    record = put(store, 1, "/home/ada/a", [1])
    store.close()
    (tmp_path / "journal").rename(tmp_path / "elsewhere")
    with pytest.raises(Damaged, match="is gone"):
        Store(tmp_path, LAYOUT, LIMIT)
    assert "is gone" in check(tmp_path).problems[0]
    (tmp_path / "elsewhere").rename(tmp_path / "journal")
    store = Store(tmp_path, LAYOUT, LIMIT)
    assert contents(store, record) == [image(1).tobytes()]
    store.close()


def test_the_limit_is_inclusive_and_what_is_replaced_is_used_again(tmp_path: Path) -> None:
    store = Store(tmp_path, LAYOUT, 4 * LAYOUT.page_bytes)
    put(store, 1, "/home/ada/a", [1, 2])
    put(store, 1, "/home/ada/a", [3, 4])          # both are there until the second is durable
    put(store, 2, "/home/ada/b", [5, 6])
    assert not store.can_allocate(1)
    with pytest.raises(LimitExceeded, match="at most 4 pages"):
        store.allocate(1)
    store.recount([])
    assert store.statistics()["disk_pages"] == 4
    store.close()


def test_slots_are_not_written_to_while_the_journal_on_disk_names_them(tmp_path: Path) -> None:
    store = Store(tmp_path, LAYOUT, 4 * LAYOUT.page_bytes)
    put(store, 1, "/home/ada/a", [1, 2])
    store.change({1: NO_NAME})
    assert store.unflushed
    assert store.allocate(2) == [2, 3]
    assert not store.can_allocate(1)
    store.flush()
    assert not store.unflushed
    assert store.allocate(2) == [0, 1]
    store.recount([0, 1, 2, 3])
    store.close()


def test_what_was_staged_and_not_committed_is_given_up(tmp_path: Path) -> None:
    store = Store(tmp_path, LAYOUT, LIMIT)
    stage(store, 1, "/home/ada/a", [1, 2])
    stage(store, 1, "/home/ada/a", [3])           # in its place
    assert store.statistics()["disk_pages"] == 1
    store.change({1: NO_NAME})
    assert not store.commit(1)
    assert store.statistics()["disk_pages"] == 0
    stage(store, 2, "/home/ada/b", [1])
    store.close()
    again = Store(tmp_path, LAYOUT, LIMIT)
    assert (again.files, again.statistics()["disk_pages"]) == ({}, 0)
    again.close()


def test_several_files_become_durable_together(tmp_path: Path) -> None:
    store = Store(tmp_path, LAYOUT, LIMIT)
    for number in (1, 2, 3):
        stage(store, number, f"/home/ada/{number}", [number])
    assert store.commit(1, 2, 3, 2)
    store.close()
    again = Store(tmp_path, LAYOUT, LIMIT)
    assert sorted(again.files) == [1, 2, 3]
    again.close()


def test_room_goes_back_to_the_disk(tmp_path: Path) -> None:
    store = Store(tmp_path, LAYOUT, LIMIT)
    small = put(store, 1, "/home/ada/small", [7])
    put(store, 2, "/home/ada/large", list(range(2 * SHRINK_SLOTS)))
    (segment,) = (tmp_path / "segments").glob("*/000000")
    large = segment.stat().st_size
    store.change({2: NO_NAME})
    assert segment.stat().st_size == large
    store.flush()
    assert segment.stat().st_size == 4096 + LAYOUT.page_bytes
    put(store, 3, "/home/ada/again", [8, 9])
    assert contents(store, small) == [image(7).tobytes()]
    store.recount([])
    store.close()


def test_a_layout_of_plain_weights_is_written_as_it_always_was() -> None:
    assert LAYOUT.to_json() == {"fingerprint": "a" * 64, "page_bytes": 64, "page_tokens": 4}
    other = replace(LAYOUT, weights="int8")
    assert Layout(**other.to_json()) == other != Layout(**LAYOUT.to_json()) == LAYOUT


def test_files_of_another_model_are_kept_and_not_touched(tmp_path: Path) -> None:
    store = Store(tmp_path, LAYOUT, LIMIT)
    mine = put(store, 1, "/home/ada/a", [1, 2])
    store.close()
    other = Store(tmp_path, Layout("b" * 64, 128, 8), LIMIT)
    assert other.files[1].layout == LAYOUT
    assert other.allocate(2) == [0, 1]
    other.write([0, 1], np.ones((2, 128), np.uint8))
    other.change({1: Naming("ada", ("/home/ada/b",))})
    other.compact()
    other.close()
    again = Store(tmp_path, LAYOUT, LIMIT)
    assert again.files[1].naming.paths == ("/home/ada/b",)
    assert contents(again, mine) == [image(1).tobytes(), image(2).tobytes()]
    again.close()
