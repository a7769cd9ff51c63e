"""Files against plain lists, with a numpy array in place of the device's pages: contents are verified, not counts."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from cadenza.kvfs.directory import FileSystem
from cadenza.kvfs.errors import Exists, Invalid, NoPages, NotFound
from cadenza.kvfs.file import Copies, File
from cadenza.kvfs.page_table import LEAF_PAGES
from cadenza.kvfs.pool import PagePool

WRITE = frozenset({"read", "append", "create"})
NAMES = ["a", "b", "notes/a", "/home/ada/b"]


@dataclass
class Reference:
    """What a file should hold: (token, position) each, and which of them are hidden. `path` and `opened` as the file
    system should see it."""

    held: list[tuple[int, int]] = field(default_factory=list)
    hidden: list[bool] = field(default_factory=list)
    path: str = ""
    opened: int = 1


class Memory:
    """The device's pages: what was written into each slot."""

    def __init__(self, pages: int, page_tokens: int) -> None:
        self._pages = np.full((pages, page_tokens, 2), -7, np.int64)

    def write(self, slots: np.ndarray, copies: Copies, held: list[tuple[int, int]]) -> None:
        for source, target in copies:
            self._pages[target] = self._pages[source]
        self._pages.reshape(-1, 2)[slots] = np.array(held).reshape(-1, 2)

    def read(self, file: File) -> dict[int, tuple[int, int]]:
        """What a pass would read: token and position by offset."""
        found: dict[int, tuple[int, int]] = {}
        for pages, first, skip, count, shift in file.segments():
            flat = self._pages[pages].reshape(-1, 2)[skip : skip + count].tolist()
            found |= {first + i: (token, position + shift) for i, (token, position) in enumerate(flat)}
        return found


class FilesBehaveAsLists(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.files: dict[File, Reference] = {}
        self.token = 0

    @initialize(page_tokens=st.sampled_from([4, 3, 1]), pages=st.sampled_from([400, 40, 12]))
    def start(self, page_tokens: int, pages: int) -> None:
        self.pool = PagePool(pages, page_tokens)
        self.system = FileSystem(self.pool)
        self.memory = Memory(pages, page_tokens)
        self.create()

    def pick(self, number: int) -> tuple[File, Reference]:
        some = [file for file, reference in self.files.items() if reference.opened]
        file = some[number % len(some)]
        return file, self.files[file]

    def any_open(self) -> bool:
        return any(reference.opened for reference in self.files.values())

    def news(self, count: int, first: int) -> list[tuple[int, int]]:
        self.token += count
        return [(self.token - count + i, first + i) for i in range(count)]

    @rule()
    def create(self) -> None:
        self.files[self.system.create("ada")] = Reference()

    @precondition(any_open)
    @rule(which=st.integers(0, 99), count=st.integers(0, 9) | st.sampled_from([99, 300]), gap=st.sampled_from([0, 5]))
    def extend(self, which: int, count: int, gap: int) -> None:
        file, reference = self.pick(which)
        new = self.news(count, file.next_position + gap)
        expected, free = file.pages_for(count), self.pool.free
        if not self.pool.can_allocate(file.pages_for(count)):
            with pytest.raises(NoPages):
                file.extend(*split(new))
            assert self.pool.free == free
            return
        slots, copies = file.extend(*split(new))
        assert self.pool.free == free - expected
        self.memory.write(slots, copies, new)
        reference.held += new
        reference.hidden += [False] * count

    @precondition(any_open)
    @rule(which=st.integers(0, 99), steps=st.integers(1, 20))
    def extend_one_by_one(self, which: int, steps: int) -> None:
        self.grow(self.pick(which)[0], steps)

    def grow(self, file: File, steps: int) -> None:
        reference = self.files[file]
        for _ in range(steps):
            [(token, position)] = new = self.news(1, file.next_position)
            free = self.pool.free
            try:
                slot, copies = file.extend_one(-1, position)
            except NoPages:
                assert self.pool.free == free
                return
            self.memory.write(np.array([slot]), copies, new)
            file.set_token(len(file) - 1, token)
            reference.held += new
            reference.hidden.append(False)

    @precondition(any_open)
    @rule(which=st.integers(0, 99), share=st.floats(0, 1))
    def truncate(self, which: int, share: float) -> None:
        file, reference = self.pick(which)
        count = round(len(file) * share)
        file.truncate(count)
        del reference.held[count:], reference.hidden[count:]

    @precondition(any_open)
    @rule(which=st.integers(0, 99), child_first=st.booleans(), child=st.integers(0, 3), parent=st.integers(0, 3))
    def fork(self, which: int, child_first: bool, child: int, parent: int) -> None:
        """Forks, and lets both sides grow, either first: the shared last page is where they could meet."""
        file, reference = self.pick(which)
        used = self.pool.used
        fork = file.fork()
        self.files[fork] = Reference(reference.held.copy(), reference.hidden.copy())
        assert self.pool.used == used
        for side, steps in sorted(((fork, child), (file, parent)), key=lambda pair: (pair[0] is fork) != child_first):
            self.grow(side, steps)

    @precondition(any_open)
    @rule(which=st.integers(0, 99), cuts=st.lists(st.floats(0, 1), max_size=6), steps=st.integers(0, 3))
    def extract(self, which: int, cuts: list[float], steps: int) -> None:
        """Any ranges, overlapping ones too; they share pages with the file, whichever of the two grows first."""
        file, reference = self.pick(which)
        ends = [round(len(file) * cut) for cut in cuts]
        ranges = [(min(pair), abs(pair[1] - pair[0])) for pair in zip(ends[::2], ends[1::2], strict=False)]
        used = self.pool.used
        piece = file.extract(ranges)
        assert self.pool.used == used
        offsets = [offset for first, count in ranges for offset in range(first, first + count)]
        self.files[piece] = Reference([reference.held[i] for i in offsets], [reference.hidden[i] for i in offsets])
        self.grow(file, steps)
        self.grow(piece, steps)

    @precondition(any_open)
    @rule(which=st.lists(st.integers(0, 99), min_size=1, max_size=3), steps=st.integers(0, 3))
    def concat(self, which: list[int], steps: int) -> None:
        files = [self.pick(number) for number in which]
        used = self.pool.used
        whole = self.system.concat("ada", [file for file, _ in files])
        assert self.pool.used == used
        self.files[whole] = Reference([pair for _, r in files for pair in r.held],
                                      [hidden for _, r in files for hidden in r.hidden])
        self.grow(files[0][0], steps)
        self.grow(whole, steps)

    @precondition(any_open)
    @rule(which=st.integers(0, 99), by=st.integers(-9, 40))
    def relocate(self, which: int, by: int) -> None:
        file, reference = self.pick(which)
        if reference.held and min(position for _, position in reference.held) + by < 0:
            with pytest.raises(Invalid):
                file.relocate(by)
            return
        used = self.pool.used
        file.relocate(by)
        assert self.pool.used == used
        reference.held = [(token, position + by) for token, position in reference.held]

    @precondition(any_open)
    @rule(which=st.integers(0, 99), low=st.floats(0, 1), high=st.floats(0, 1), hide=st.booleans())
    def hide_or_show(self, which: int, low: float, high: float, hide: bool) -> None:
        file, reference = self.pick(which)
        first, end = sorted((round(len(file) * low), round(len(file) * high)))
        (file.hide if hide else file.show)(first, end - first)
        reference.hidden[first:end] = [hide] * (end - first)

    @rule(name=st.sampled_from(NAMES), more=st.sampled_from([set(), {"exclusive"}, {"truncate"}]))
    def open(self, name: str, more: set[str]) -> None:
        path = name if name.startswith("/") else f"/home/ada/{name}"
        there = next((file for file, reference in self.files.items() if reference.path == path), None)
        if there is not None and "exclusive" in more:
            with pytest.raises(Exists):
                self.system.open("ada", name, WRITE | more)
            return
        file = self.system.open("ada", name, WRITE | more)
        reference = self.files.setdefault(file, Reference(path=path, opened=0))
        reference.opened += 1
        assert there in (None, file)
        if "truncate" in more:
            reference.held.clear()
            reference.hidden.clear()

    @rule(name=st.sampled_from(NAMES))
    def unlink(self, name: str) -> None:
        path = name if name.startswith("/") else f"/home/ada/{name}"
        there = next((file for file, reference in self.files.items() if reference.path == path), None)
        if there is None:
            with pytest.raises(NotFound):
                self.system.unlink("ada", name)
            return
        self.system.unlink("ada", name)
        self.files[there].path = ""
        self.forget(there)

    @precondition(any_open)
    @rule(which=st.integers(0, 99))
    def close(self, which: int) -> None:
        file, reference = self.pick(which)
        self.system.close(file)
        reference.opened -= 1
        self.forget(file)

    def forget(self, file: File) -> None:
        reference = self.files[file]
        if not reference.opened and not reference.path:
            del self.files[file]
            assert file.closed

    @invariant()
    def every_file_holds_what_its_list_holds(self) -> None:
        for file, reference in self.files.items():
            names = [reference.path] if reference.path else []
            assert (len(file), file.paths, file.open_count) == (len(reference.held), names, reference.opened)
            seen = {i: pair for i, pair in enumerate(reference.held) if not reference.hidden[i]}
            assert self.memory.read(file) == seen
            assert file.hidden_tokens == len(reference.held) - len(seen)
            tokens, positions = split(reference.held)
            assert file.tokens().tolist() == tokens
            assert file.positions().tolist() == positions
            assert file.next_position == max(positions, default=-1) + 1
            assert file.contiguous == (not len(file.parts) and positions == list(range(len(positions))))

    @invariant()
    def nothing_is_lost_or_counted_wrongly(self) -> None:
        if not hasattr(self, "system"):
            return
        self.system.recount()
        held = [set(file.pages) for file in self.files]
        assert self.pool.used == len(set().union(*held))
        for file, mine in zip(self.files, held, strict=True):
            others = set().union(*(pages for other, pages in zip(self.files, held, strict=True) if other is not file))
            assert file.shared_pages() == len(mine & others)

    def teardown(self) -> None:
        for file, reference in list(self.files.items()):
            if reference.path:
                self.system.unlink("ada", reference.path)
            for _ in range(reference.opened):
                self.system.close(file)
        if hasattr(self, "pool"):
            self.system.recount()
            assert self.pool.used == 0
            assert self.system.statistics()["files"] == 0


def split(held: list[tuple[int, int]]) -> tuple[list[int], list[int]]:
    return [token for token, _ in held], [position for _, position in held]


assert LEAF_PAGES < 100, "the longest extend above must cross a leaf"
TestFiles = FilesBehaveAsLists.TestCase
TestFiles.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)
