"""The file system: every file of every user, by its names."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import NamedTuple, NoReturn

from cadenza.kvfs.access import PRIVATE, PUBLIC, RIGHTS, Access, Rights
from cadenza.kvfs.errors import Busy, Denied, Exists, Invalid, LimitExceeded, NotFound, Unsupported
from cadenza.kvfs.extent import Extent
from cadenza.kvfs.file import File, Ranges
from cadenza.kvfs.limits import FileLimits
from cadenza.kvfs.names import Directory, Names, always_there, check_length, may_name, resolve, written
from cadenza.kvfs.page_table import Leaf, PageTable
from cadenza.kvfs.pool import PagePool
from cadenza.kvfs.prefixes import Prefixes
from cadenza.kvfs.quotas import Census

OPEN_FLAGS = frozenset({"read", "append", "create", "exclusive", "truncate"})


class Entry(NamedTuple):
    """What a directory holds under one name. `tokens` is 0 for a directory."""

    name: str
    directory: bool
    tokens: int


class FileSystem:
    """Makes files, names them, and knows who may do what with them.

    `user` is always who asks. A file that he may neither read nor append to answers exactly as if it were absent; so
    does a directory in which there is nothing that he may read, unless it is `/`, `/home`, `/shared` or his home. Only
    in his home and in `/shared` may he name files, and only the owner of a file changes its names, mode and grants.
    """

    def __init__(self, pool: PagePool, limits: FileLimits | None = None) -> None:
        self.pool = pool
        self.limits = limits or FileLimits()
        self.prefixes = Prefixes(pool)
        self.living = Census(self.limits.files_per_user)
        # Called with the files whose names or rights have just changed, together: a journal writes that down at once.
        self.names_changed: Callable[[Sequence[File]], None] = _forget_disk
        self._root = Directory()
        pool.quota_pages = self.limits.pages_per_user

    # --- making files ---

    def create(self, user: str) -> File:
        """An empty nameless file, opened once: gone at its last close. Raises LimitExceeded, as all that makes one."""
        self.living.ensure_room(user)
        return self.living.enter(File(self.pool, user, self.living))

    def fork(self, user: str, file: File) -> File:
        """A nameless file of the user's with the same tokens. Constant time. Raises Busy."""
        self.living.ensure_room(user)
        return self.living.enter(file.fork(user))

    def extract(self, user: str, file: File, ranges: Ranges) -> File:
        """A nameless file of the user's of those ranges (first, count), in this order. Raises Invalid, Busy."""
        self._check_composed(sum(count for _, count in ranges), len(ranges))
        self.living.ensure_room(user)
        child = file.extract(ranges, user)
        try:
            self._check_composed(len(child), len(child.parts))
        except LimitExceeded:
            child.close()
            raise
        return self.living.enter(child)

    def concat(self, user: str, files: Sequence[File]) -> File:
        """A nameless file of the user's of all tokens of `files`, at least one of them. Raises Invalid, Busy."""
        self._check_composed(sum(map(len, files)), sum(len(file.parts) + 1 for file in files))
        self.living.ensure_room(user)
        return self.living.enter(File.concat(files, user))

    def hide(self, file: File, first: int, count: int) -> None:
        """Passes read those tokens no more. Raises Invalid, Busy, LimitExceeded."""
        self._check_composed(len(file), len(file.parts) + 3)
        file.hide(first, count)

    def show(self, file: File, first: int, count: int) -> None:
        """Passes read those tokens again. Raises as `hide` does."""
        self._check_composed(len(file), len(file.parts) + 3)
        file.show(first, count)

    def close(self, file: File) -> None:
        """One descriptor less. A file without a name goes with its last."""
        file.release()

    # --- names ---

    def open(self, user: str, path: str, flags: frozenset[str]) -> File:
        """The file at `path`, opened once more; close it with `close`.

        Raises Invalid (path, flags), NotFound, Exists (`exclusive`), Denied, LimitExceeded (a new file), Busy
        (`truncate` while a pass appends), Unsupported (another model's).
        """
        _check_flags(flags)
        names = resolve(user, path, self.limits)
        file = self._file(user, path, names, "open")
        if file is None:
            return self._open_new(user, path, names, flags)
        _check_model(path, file)
        if "exclusive" in flags:
            raise Exists(f"{path} exists: choose another path, or open it without `exclusive`")
        missing = (flags & {"read", "append"}) - file.access.of(file.owner, user)
        if missing:
            raise Denied(f"{path} is {file.owner}'s; {user} may not {min(missing)} it: open it otherwise, or fork it")
        if "truncate" in flags:
            _check_idle(path, file)
            file.truncate(0)
        file.open_count += 1
        return file

    def find(self, user: str, path: str, right: str = "") -> File:
        """The file at `path`, which stays as it is. With a `right`, its contents may be used so: else raises Denied, or
        Unsupported for another model's. Raises Invalid, NotFound."""
        file = self._file(user, path, resolve(user, path, self.limits), "name")
        if file is None:
            _absent(path)
        if right and right not in file.access.of(file.owner, user):
            raise Denied(f"{path} is {file.owner}'s, and {user} may not {right} it: its owner can grant that")
        if right:
            _check_model(path, file)
        return file

    def link(self, user: str, file: File, path: str) -> None:
        """One name more for a file of the user's. Raises Invalid, NotFound, Exists, Denied, LimitExceeded.

        A file without a name whose mode was never changed gets the mode of the place.
        """
        _check_owner(user, repr(file), file, "name")
        names = resolve(user, path, self.limits)
        self._check_free(user, path, names)
        if file.paths:
            self.living.ensure_room(user)
            self.living.count_names(user, 1)
        elif file.access in (PRIVATE, PUBLIC):
            file.access = usual_access(names)
        self._name(file, names)
        self.names_changed([file])

    def rename(self, user: str, path: str, to: str) -> None:
        """Atomic: a file that was called `to` loses that name, which may be its last. A directory takes along what is
        in it, and replaces nothing. Two names of one file both stay. The mode stays.

        Raises Invalid, NotFound, Exists, Denied.
        """
        names, target = resolve(user, path, self.limits), resolve(user, to, self.limits)
        node = self._node(user, names)
        if node is None:
            _absent(path)
        if always_there(user, names):
            raise Invalid(f"{path} is always there and cannot be renamed: rename what is in it", "path")
        moved = [(names, node)] if isinstance(node, File) else list(node.files(names))
        for _, file in moved:
            _check_owner(user, path, file, "rename")
        if self._root.find(target) is node:
            return
        if isinstance(node, Directory) and target[: len(names)] == names:
            raise Invalid(f"{to} is inside {path}: a directory cannot be moved into itself", "to")
        for old, _ in moved:
            check_length(target + old[len(names) :], self.limits)
        replaced = self._replaceable(user, to, target, node)
        if replaced is not None:
            self._drop_name(replaced, target)
        self._root.take(names)
        self._root.put(target, node)
        for old, file in moved:
            file.paths[file.paths.index(written(old))] = written(target + old[len(names) :])
        changed = dict.fromkeys([file for _, file in moved] + ([replaced] if replaced is not None else []))
        self.names_changed(list(changed))
        if replaced is not None:
            replaced.close_if_forgotten()

    def unlink(self, user: str, path: str) -> None:
        """Takes the name away; the file goes with its last name and descriptor. Raises NotFound, Denied, Invalid."""
        names = resolve(user, path, self.limits)
        file = self._file(user, path, names, "unlink")
        if file is None:
            _absent(path)
        _check_owner(user, path, file, "unlink")
        self._root.take(names)
        self._drop_name(file, names)
        self.names_changed([file])
        file.close_if_forgotten()

    def entries(self, user: str, path: str) -> list[Entry]:
        """What is in a directory and may be read, by name. `/home` shows the user's own home alone.

        Raises Invalid, NotFound. Takes time with the files below it.
        """
        names = resolve(user, path, self.limits)
        node = self._node(user, names)
        if node is None:
            _absent(path)
        if isinstance(node, File):
            raise Invalid(f"{path} is a file, not a directory", "path")
        inside = {(): ["home", "shared"], ("home",): [user]}.get(names, node.entries)
        found = ((name, self._node(user, (*names, name), right="read")) for name in sorted(inside))
        return [Entry(name, isinstance(below, Directory), len(below) if isinstance(below, File) else 0)
                for name, below in found if below is not None]

    def place(self, file: File, paths: Sequence[str], access: Access) -> None:
        """The names and rights of a file that has just come from disk. Raises Exists if one of the names is taken."""
        file.access = access
        self.living.enter(file)
        for path in paths:
            names = tuple(path[1:].split("/"))
            if self._root.find(names) is not None:
                raise Exists(f"{path} is taken: two files on disk have that name")
            self.living.count_names(file.owner, 1 if file.paths else 0)
            self._name(file, names)

    # --- rights ---

    def change_mode(self, user: str, file: File, mine: Rights, others: Rights) -> None:
        """What its owner and everybody else may do with the file, from now on, open or not. Raises Denied."""
        _check_owner(user, repr(file), file, "change the mode of")
        file.access = file.access.with_mode(mine, others)
        self.names_changed([file])

    def grant(self, user: str, file: File, to: str, rights: Rights) -> None:
        """What the user `to` may do beyond what others may; nothing takes it back. Raises Denied, Invalid,
        LimitExceeded."""
        _check_owner(user, repr(file), file, "grant rights to")
        if to == file.owner or not to:
            raise Invalid(f"{to or 'nobody'} cannot be granted rights: name a user other than the owner", "user")
        if to not in file.access.grants and len(file.access.grants) >= self.limits.grants:
            raise LimitExceeded(f"{file!r} has grants for {self.limits.grants} users, the limit: take one back, or let "
                                "others read it", "grants_per_file")
        file.access = file.access.with_grant(to, rights)
        self.names_changed([file])

    # --- the whole ---

    def recount(self) -> None:
        """Raises AssertionError unless every page, leaf, extent, table and name is held exactly as often as it is
        counted."""
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
        self._recount_names()

    def statistics(self) -> dict[str, int]:
        """Files alive, their tokens (shared ones counted in each), and the pool's numbers."""
        return {
            "files": len(self.living),
            "named": sum(bool(file.paths) for file in self.living),
            "tokens": sum(len(file) for file in self.living),
            **self.pool.statistics(),
        }

    # --- inside ---

    def _node(self, user: str, names: Names, right: str = "") -> Directory | File | None:
        """What is called so, if the user may see it: a file with any right, or with `right`."""
        node = self._root.find(names)
        if isinstance(node, File):
            return node if _sees(user, node, right) else None
        if always_there(user, names):
            return node or Directory()
        seen = node is not None and any(_sees(user, file, "read") for _, file in node.files())
        return node if seen else None

    def _file(self, user: str, path: str, names: Names, what: str) -> File | None:
        """The file called so, if the user may see it. Raises Invalid for a directory."""
        node = self._node(user, names)
        if isinstance(node, Directory):
            raise Invalid(f"{path} is a directory: {what} a file in it", "path")
        return node

    def _open_new(self, user: str, path: str, names: Names, flags: frozenset[str]) -> File:
        if "create" not in flags:
            _absent(path)
        self._check_free(user, path, names)
        file = self.create(user)
        file.access = usual_access(names)
        self._name(file, names)
        return file

    def _check_free(self, user: str, path: str, names: Names) -> None:
        """Raises unless the user may name a file so. What he may not see takes its name nevertheless."""
        if always_there(user, names):
            raise Invalid(f"{path} names no file: give /home/{user}/… or /shared/…", "path")
        if not may_name(user, names):
            _absent(path)
        if self._root.find(names) is not None:
            raise Exists(f"{path} is taken: choose another path")
        self._root.check_way(names)

    def _replaceable(self, user: str, to: str, target: Names, source: Directory | File) -> File | None:
        """The file that makes way for `source`. Raises unless the user may call it so."""
        there = self._root.find(target)
        if not (isinstance(there, File) and isinstance(source, File) and _sees(user, there)):
            self._check_free(user, to, target)
            return None
        _check_owner(user, to, there, "replace")
        return there

    def _name(self, file: File, names: Names) -> None:
        self._root.put(names, file)
        file.paths.append(written(names))

    def _drop_name(self, file: File, names: Names) -> None:
        file.paths.remove(written(names))
        if file.paths:
            self.living.count_names(file.owner, -1)

    def _check_composed(self, tokens: int, parts: int) -> None:
        """Raises LimitExceeded for a file of too much."""
        for count, limit, what in ((tokens, self.limits.tokens, "tokens"), (parts, self.limits.parts, "parts")):
            if count > limit:
                raise LimitExceeded(f"a file of {count} {what} would be too much: one that is made of others has at "
                                    f"most {limit}", f"file_{what}")

    def _recount_names(self) -> None:
        names = [(written(names), file) for names, file in self._root.files()]
        for path, file in names:
            assert path in file.paths, f"{file!r} does not know that it is called {path}"
            assert file in self.living, f"{path} names a file that is closed"
        assert len(names) == sum(len(file.paths) for file in self.living), "a file knows a name that is not there"


def usual_access(names: Names) -> Access:
    """Of a file that gets its first name there."""
    return PUBLIC if names[0] == "shared" else PRIVATE


def _absent(path: str) -> NoReturn:
    raise NotFound(f"there is no file {path}: create it, or look at the path")


def _sees(user: str, file: File, right: str = "") -> bool:
    if file.owner == user:
        return True
    rights = file.access.of(file.owner, user)
    return right in rights if right else bool(rights)


def _forget_disk(files: Sequence[File]) -> None:
    """What is on disk has other names."""
    for file in files:
        file.synced = -1


def _check_flags(flags: frozenset[str]) -> None:
    unknown = ", ".join(sorted(flags - OPEN_FLAGS))
    if unknown:
        raise Invalid(f"unknown flags {unknown}: there are {', '.join(sorted(OPEN_FLAGS))}", "how")
    if not flags & RIGHTS:
        raise Invalid("a file is opened with `read`, `append` or both", "how")
    if "exclusive" in flags and "create" not in flags:
        raise Invalid("`exclusive` means nothing without `create`", "how")
    if flags & {"truncate", "create"} and "append" not in flags:
        raise Invalid("`create` and `truncate` need `append`", "how")


def _check_owner(user: str, name: str, file: File, what: str) -> None:
    if file.owner != user:
        raise Denied(f"only {file.owner}, its owner, may {what} {name}: fork it, and do so with the fork")


def _check_idle(path: str, file: File) -> None:
    if file.busy:
        raise Busy(f"{path} is being appended to by an unfinished pass: wait for it")


def _check_model(path: str, file: File) -> None:
    if file.foreign:
        raise Unsupported(f"{path} holds states of {file.foreign}: serve that model, or compute the file again")


def _check_table(table: PageTable, holders: int, page_tokens: int) -> None:
    assert table.holders == holders, f"a page table counts {table.holders} holders, {holders} are found"
    pages = [page for leaf in table.leaves for page in leaf.pages]
    assert table.pages().tolist() == pages, "a page table differs from its leaves"
    tokens = sum(len(leaf.tokens) for leaf in table.leaves)
    assert tokens == table.count, f"a page table counts {table.count} tokens, {tokens} are found"
    assert len(pages) == -(-tokens // page_tokens), f"{tokens} tokens in {len(pages)} pages of {page_tokens}"
