"""The journal: a cut at any byte leaves a prefix, a changed byte is told from a cut, a rewrite loses nothing."""

from __future__ import annotations

import re
import resource
import threading
from pathlib import Path

import numpy as np
import pytest

from cadenza.kvfs.errors import Damaged
from cadenza.kvfs.fsck import check
from cadenza.kvfs.journal import HEADER, MARK, NAMES, Journal, header, pack, read_journal, scattered_entries
from cadenza.kvfs.records import FileRecord, Naming, PartRecord, StoredPage, decode, encode, encode_names
from cadenza.kvfs.store import Store
from tests.kvfs.storing import LAYOUT, LIMIT, NO_NAME, fill, flip, put, record_for

Seen = dict[int, tuple[Naming, set[int]]]


def seen(files: dict[int, FileRecord]) -> Seen:
    return {number: (record.naming, record.slots) for number, record in files.items()}


@pytest.fixture
def states(tmp_path: Path) -> list[tuple[int, Seen]]:
    """A store in tmp_path that was closed, and what it held at which length of its journal."""
    store = Store(tmp_path, LAYOUT, LIMIT)
    journal = tmp_path / "journal"
    found: list[tuple[int, Seen]] = [(journal.stat().st_size, {})]
    for step in range(6):
        before = journal.stat().st_size
        if step in (2, 5):
            store.change({1: Naming("ada", (f"/home/ada/moved{step}",)), 2: NO_NAME})
            found.append((journal.stat().st_size, seen(store.files)))
        else:
            put(store, step % 3 + 1, f"/home/ada/{step}", [step, step + 100])
            (entry, *_) = [each for each in read_journal(journal).entries if each.position >= before]
            found.append((entry.end, seen(store.files)))
    store.close()
    return found


def test_a_cut_at_every_byte_leaves_a_prefix_of_what_happened(tmp_path: Path, states: list[tuple[int, Seen]]) -> None:
    journal = tmp_path / "journal"
    whole = journal.read_bytes()
    for end in range(HEADER.size, len(whole) + 1):
        fill(journal, whole[:end])
        store = Store(tmp_path, LAYOUT, LIMIT)
        assert seen(store.files) == [files for size, files in states if size <= end][-1]
        store.recount([])
        store.close()
        assert read_journal(journal).size == read_journal(journal).end <= end + 32


def test_a_changed_byte_anywhere_is_damage_and_no_crash(tmp_path: Path, states: list[tuple[int, Seen]]) -> None:
    """Nothing is cut off and forgotten, whichever field was hit; but for the mark at the end, which says nothing."""
    journal = tmp_path / "journal"
    whole = journal.read_bytes()
    last = read_journal(journal).entries[-1]
    assert last.kind == MARK
    for at in range(len(whole)):
        flip(journal, at, 0x81)
        if at < last.position:
            with pytest.raises(Damaged, match="fsck"):
                Store(tmp_path, LAYOUT, LIMIT)
            assert journal.stat().st_size == len(whole), "a damaged journal was written to"
        else:
            store = Store(tmp_path, LAYOUT, LIMIT)
            assert seen(store.files) == states[-1][1]
            store.close()
        fill(journal, whole)


def test_what_a_loss_of_power_tore_in_the_middle_is_cut_off(tmp_path: Path) -> None:
    """The system may write later blocks first. What was not yet said to be on the disk may be torn."""
    store = Store(tmp_path, LAYOUT, LIMIT)
    put(store, 1, "/home/ada/a", [1])
    journal = tmp_path / "journal"
    synced = journal.stat().st_size
    for path in ("b", "c", "d"):
        store.change({1: Naming("ada", (path,))})
    torn = journal.read_bytes()
    store.close()
    fill(journal, torn)
    flip(journal, synced + 40)
    report = check(tmp_path)
    assert report.clean
    assert "never finished" in report.notes[0]
    store = Store(tmp_path, LAYOUT, LIMIT)
    assert store.files[1].naming.paths == ("/home/ada/a",)
    store.close()


def test_entries_are_found_behind_damage(tmp_path: Path, states: list[tuple[int, Seen]]) -> None:
    entries = read_journal(tmp_path / "journal").entries
    assert len(entries) > 9
    data = (tmp_path / "journal").read_bytes()
    assert [each.position for each in scattered_entries(data, 0)] == [each.position for each in entries]
    assert scattered_entries(data[: HEADER.size], 0) == scattered_entries(b"", 0) == []
    shifted = b"x" + data
    assert scattered_entries(shifted, 0) == [], "an entry in the wrong place is none"


def test_it_is_rewritten_when_most_of_it_is_past(tmp_path: Path) -> None:
    store = Store(tmp_path, LAYOUT, LIMIT)
    big = Naming("ada", ("/home/ada/" + "x" * 200,), grants={f"user{n}": frozenset({"read"}) for n in range(3000)})
    for _ in range(60):
        store.stage(record_for(1, "/home/ada/a", [], 0).named(big))
        assert store.commit(1)
    assert store.statistics()["journal_bytes"] < 5 << 18
    store.close()
    again = Store(tmp_path, LAYOUT, LIMIT)
    assert again.files[1].naming == big
    assert again.new_number() == 2
    again.close()


def test_numbers_are_not_used_again_after_a_rewrite(tmp_path: Path) -> None:
    store = Store(tmp_path, LAYOUT, LIMIT)
    put(store, store.new_number(), "/home/ada/a", [1])
    put(store, store.new_number(), "/home/ada/b", [1])
    store.change({2: NO_NAME})
    store.compact()
    store.close()
    again = Store(tmp_path, LAYOUT, LIMIT)
    assert again.new_number() == 3
    again.close()


def test_names_change_while_it_is_rewritten(tmp_path: Path) -> None:
    store = Store(tmp_path, LAYOUT, LIMIT)
    for number in range(1, 31):
        put(store, number, f"/home/ada/{number}", [])
    done = threading.Event()
    rewritten = 0

    def rewrite() -> None:
        nonlocal rewritten
        while not done.is_set():
            store.compact()
            rewritten += 1

    thread = threading.Thread(target=rewrite)
    thread.start()
    turn = 0
    while turn < 300 or rewritten < 3:
        number = turn % 30 + 1
        store.change({number: Naming("ada", (f"/home/ada/{number}/{turn}",))})
        turn += 1
    done.set()
    thread.join()
    expected = seen(store.files)
    journal = (tmp_path / "journal").read_bytes()                # as a kill would leave it
    store.close()
    (tmp_path / "journal").write_bytes(journal)
    again = Store(tmp_path, LAYOUT, LIMIT)
    assert seen(again.files) == expected
    assert {record.naming.paths[0].split("/")[3] for record in again.files.values()} == {str(n) for n in range(1, 31)}
    again.close()


def test_a_full_disk_leaves_it_whole(tmp_path: Path) -> None:
    store = Store(tmp_path, LAYOUT, LIMIT)
    put(store, 1, "/home/ada/a", [1])
    journal = tmp_path / "journal"
    size = journal.stat().st_size
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size + 50, hard))
    try:
        with pytest.raises(OSError, match=r"large|takes no more"):
            store.change({1: Naming("ada", ("/home/ada/" + "b" * 100,))})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert journal.stat().st_size == size
    assert store.files[1].naming.paths == ("/home/ada/a",)
    store.change({1: Naming("ada", ("/home/ada/c",))})
    store.close()
    again = Store(tmp_path, LAYOUT, LIMIT)
    assert again.files[1].naming.paths == ("/home/ada/c",)
    again.close()


def test_a_new_one_has_the_entries_it_was_given(tmp_path: Path) -> None:
    Journal.create(tmp_path / "journal", 7, [(1, b"one"), (2, b"")]).close()
    found = read_journal(tmp_path / "journal")
    assert [(each.kind, bytes(each.payload)) for each in found.entries] == [(1, b"one"), (2, b"")]
    assert (found.next_number, found.damaged, found.lost) == (7, False, [])


def test_the_example_of_the_documentation_is_what_is_written() -> None:
    text = (Path(__file__).parents[2] / "docs" / "storage.md").read_text()
    rows = re.findall(r"^[0-9a-f]{4}  ((?:[0-9a-f]{2} ?)+) ", text, re.MULTILINE)
    no_name = Naming("ada", (), frozenset(), frozenset())
    assert bytes.fromhex("".join(rows)) == header(6) + pack(NAMES, encode_names({5: no_name}), HEADER.size, HEADER.size)


# --- records ---


def test_a_record_is_read_as_it_was_written() -> None:
    naming = Naming("ada", ("/x", "/ä b"), grants={"bob": frozenset({"read"})})
    pages = (StoredPage(1 << 40, 0xFFFFFFFF), StoredPage(3, 0))
    tokens, positions = np.array([5, -1, 7], np.int32), np.array([9, 9, 11], np.int32)
    parts = (PartRecord(pages, 1, 0, 2, 0, False, tokens, positions),
             PartRecord(pages, 1, 2, 1, -5, True, tokens, positions),
             PartRecord((), 0, 0, 3, 2, False, positions, np.arange(4, 7, dtype=np.int32)))
    record = FileRecord(7, LAYOUT, naming, False, False, 1, 1 << 62, parts, "d1")
    found = decode(encode(record))
    assert found.adapter == "d1"
    assert (found.number, found.naming, found.modified_ns, found.slots) == (7, naming, 1 << 62, {1 << 40, 3})
    for part, expected in zip(found.parts, parts, strict=True):
        assert (part.pages, part.skip, part.first, part.length, part.shift, part.hidden) == (
            expected.pages, expected.skip, expected.first, expected.length, expected.shift, expected.hidden)
        assert part.tokens.tolist() == expected.tokens.tolist()
        assert part.positions.tolist() == expected.positions.tolist()
        assert part.positions.dtype == np.int32
    assert len(found.extents) == 2
    assert found.parts[0].tokens is found.parts[1].tokens
    with pytest.raises(ValueError, match="2 bytes too many"):
        decode(encode(record) + b"xx")


def test_an_extent_is_written_once_however_many_parts_it_has() -> None:
    tokens = np.arange(50_000, dtype=np.int32)
    parts = tuple(PartRecord((), 0, 50 * n, 50, 0, n % 2 == 1, tokens, tokens) for n in range(1000))
    record = FileRecord(1, LAYOUT, Naming("ada", ("/x",)), False, False, 1, 1, parts)
    assert len(encode(record)) < 4 * 50_000 + 100 * 1000
