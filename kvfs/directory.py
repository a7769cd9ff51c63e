"""The tree of names over files: each user's home, and what is shared."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NoReturn

from cadenza.kvfs.errors import Busy, Denied, Exists, Invalid, NotFound
from cadenza.kvfs.extent import Extent
from cadenza.kvfs.file import File
from cadenza.kvfs.page_table import Leaf, PageTable
from cadenza.kvfs.pool import PagePool
from cadenza.kvfs.prefixes import Prefixes

OPEN_FLAGS = frozenset({"read", "append", "create", "exclusive", "truncate"})
_DEPTH = {"home": 3, "shared": 2}  # how many names a file's path has at least


@dataclass(slots=True)
class Directory:
    """Names of files and directories. It appears with its first entry and goes with its last."""

    entries: dict[str, Directory | File] = field(default_factory=dict)

    def find(self, names: tuple[str, ...]) -> Directory | File | None:
        node: Directory | File | None = self
        for name in names:
            node = node.entries.get(name) if isinstance(node, Directory) else None
        return node

    def add(self, names: tuple[str, ...], file: File) -> None:
        """Raises Invalid when a file stands where a directory is needed."""
        node = self
        for depth, name in enumerate(names[:-1], 1):
            below = node.entries.get(name)
            if isinstance(below, File):
                raise Invalid(f"/{'/'.join(names[:depth])} is a file, not a directory: choose another path", "path")
            if below is None:
                below = node.entries[name] = Directory()
            node = below
        node.entries[names[-1]] = file

    def remove(self, names: tuple[str, ...]) -> None:
        below = self.entries[names[0]]
        if len(names) > 1 and isinstance(below, Directory):
            below.remove(names[1:])
            if below.entries:
                return
        del self.entries[names[0]]


class FileSystem:
    """Every file of every user.

    `/home/<user>/…` is the user's alone: to anybody else it answers exactly as if it were absent. `/shared/…` is read
    by all and changed by the owner of the file. Other paths are under the user's home.
    """

    def __init__(self, pool: PagePool, path_bytes: int = 256) -> None:
        self.pool = pool
        self.prefixes = Prefixes(pool)
        self._path_bytes = path_bytes
        self._root = Directory()
        self.living: set[File] = set()

    def create(self, owner: str) -> File:
        """An empty nameless file: gone at its last close."""
        return File(self.pool, owner, self.living)

    def concat(self, owner: str, files: Sequence[File]) -> File:
        """A nameless file of all tokens of `files`, one after the other. Raises Invalid for none, Busy."""
        return File.concat(files, owner)

    def open(self, owner: str, path: str, flags: frozenset[str]) -> File:
        """The file at `path`, opened once more; close it with `close`.

        Raises Invalid (path, flags), NotFound, Exists (`exclusive`), Denied (another's shared file), Busy (`truncate`
        while a pass appends).
        """
        _check_flags(flags)
        names = self._names(owner, path)
        node = self._root.find(names)
        if isinstance(node, Directory):
            raise Invalid(f"{path} is a directory: open a file in it", "path")
        if node is None:
            return self._add(owner, path, names, flags)
        if "exclusive" in flags:
            raise Exists(f"{path} exists: choose another path, or open it without `exclusive`")
        if "append" in flags:
            _check_owner(owner, path, node)
        if "truncate" in flags:
            _check_idle(path, node)
            node.truncate(0)
        node.open_count += 1
        return node

    def unlink(self, owner: str, path: str) -> None:
        """Takes the name away; the file goes with its last descriptor. Raises NotFound, Denied, Invalid."""
        names = self._names(owner, path)
        node = self._root.find(names)
        if isinstance(node, Directory):
            raise Invalid(f"{path} is a directory: unlink the files in it", "path")
        if node is None:
            _absent(path)
        _check_owner(owner, path, node)
        self._root.remove(names)
        node.path = ""
        node.close_if_forgotten()

    def close(self, file: File) -> None:
        """One descriptor less. A file without a name goes with its last."""
        file.release()

    def recount(self) -> None:
        """Raises AssertionError unless every page, leaf, extent and table is held exactly as often as it is counted."""
        tables = Counter(file.table for file in self.living)
        extents = Counter(part.extent for file in self.living for part in file.parts)
        leaves: Counter[Leaf] = Counter()
        for table, holders in tables.items():
            _check_table(table, holders, self.pool.page_tokens)
            leaves.update(table.leaves)
        found: list[tuple[Leaf | Extent, int]] = [*leaves.items(), *extents.items()]
        for block, holders in found:
            assert block.holders == holders, f"{block!r} counts {block.holders} holders, {holders} are found"
        self.pool.recount(block.pages for block, _ in found)

    def statistics(self) -> dict[str, int]:
        """Files alive, their tokens (shared ones counted in each), and the pool's numbers."""
        return {
            "files": len(self.living),
            "named": sum(file.path != "" for file in self.living),
            "tokens": sum(len(file) for file in self.living),
            **self.pool.statistics(),
        }

    def _add(self, owner: str, path: str, names: tuple[str, ...], flags: frozenset[str]) -> File:
        if "create" not in flags:
            _absent(path)
        file = self.create(owner)
        try:
            self._root.add(names, file)
        except Invalid:
            file.close()
            raise
        file.path = "/" + "/".join(names)
        return file

    def _names(self, owner: str, path: str) -> tuple[str, ...]:
        """The path from the root, checked. Raises Invalid, and NotFound for whatever is under another's home."""
        if not path or "\0" in path or len(path.encode()) > self._path_bytes:
            raise Invalid(f"a path has 1 to {self._path_bytes} bytes and no NUL; this one has {len(path)}", "path")
        names = tuple(name for name in path.split("/") if name)
        if any(name in (".", "..") for name in names):
            raise Invalid(f"{path} goes through . or ..: give the path in full", "path")
        if not path.startswith("/"):
            names = ("home", owner, *names)
        top = names[0] if names else ""
        if top not in _DEPTH or (top == "home" and names[1:2] not in ((), (owner,))):
            _absent(path)
        if len(names) < _DEPTH[top]:
            raise Invalid(f"{path} names no file: give /home/{owner}/… or /shared/…", "path")
        return names


def _absent(path: str) -> NoReturn:
    raise NotFound(f"there is no file {path}: create it, or look at the path")


def _check_flags(flags: frozenset[str]) -> None:
    unknown = ", ".join(sorted(flags - OPEN_FLAGS))
    if unknown:
        raise Invalid(f"unknown flags {unknown}: there are {', '.join(sorted(OPEN_FLAGS))}", "how")
    if not flags & {"read", "append"}:
        raise Invalid("a file is opened with `read`, `append` or both", "how")
    if "exclusive" in flags and "create" not in flags:
        raise Invalid("`exclusive` means nothing without `create`", "how")
    if flags & {"truncate", "create"} and "append" not in flags:
        raise Invalid("`create` and `truncate` need `append`", "how")


def _check_owner(owner: str, path: str, file: File) -> None:
    if file.owner != owner:
        raise Denied(f"{path} is shared by another user and can only be read: fork it")


def _check_idle(path: str, file: File) -> None:
    if file.busy:
        raise Busy(f"{path} is being appended to by an unfinished pass: wait for it")


def _check_table(table: PageTable, holders: int, page_tokens: int) -> None:
    assert table.holders == holders, f"a page table counts {table.holders} holders, {holders} are found"
    pages = [page for leaf in table.leaves for page in leaf.pages]
    assert table.pages().tolist() == pages, "a page table differs from its leaves"
    tokens = sum(len(leaf.tokens) for leaf in table.leaves)
    assert tokens == table.count, f"a page table counts {table.count} tokens, {tokens} are found"
    assert len(pages) == -(-tokens // page_tokens), f"{tokens} tokens in {len(pages)} pages of {page_tokens}"
