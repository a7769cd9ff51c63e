"""Files of the KV file system: ordered lists of tokens whose keys and values the model has computed."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Literal, Self

from wit_world.imports import kv as kernel

from .errors import Error, checked
from .events import Handle

OpenFlag = Literal["read", "append", "create", "exclusive", "truncate"]
Right = Literal["read", "append"]

_create = checked(kernel.create)
_open = checked(kernel.open)
_link = checked(kernel.link)
_rename = checked(kernel.rename)
_unlink = checked(kernel.unlink)
_entries = checked(kernel.entries)
_change_mode = checked(kernel.change_mode)
_change_grant = checked(kernel.change_grant)
_fork = checked(kernel.fork)
_extract = checked(kernel.extract)
_concat = checked(kernel.concat)
_relocate = checked(kernel.relocate)
_hide = checked(kernel.hide)
_show = checked(kernel.show)
_truncate = checked(kernel.truncate)
_stat = checked(kernel.stat)
_tokens = checked(kernel.tokens)
_positions = checked(kernel.positions)
_sync = checked(kernel.sync)
_take_sync = checked(kernel.take_sync)
_lock = checked(kernel.lock)
_close = checked(kernel.close)


@dataclass(frozen=True)
class FileStatus:
    """`tokens` held, of which `hidden` are not read by passes, on `pages`, of which `shared_pages` are other files'
    too. `busy`: a pass is writing to it. `mine` are its owner's rights, `others` everybody's, `grants` named users'.
    `exact`: equal to a plain prefill of its tokens at these positions. `durable`: on disk as it is now. Times are in
    seconds since 1970."""

    tokens: int
    hidden: int
    pages: int
    next_position: int
    shared_pages: int
    paths: list[str]
    busy: bool
    owner: str
    mine: frozenset[Right]
    others: frozenset[Right]
    grants: Mapping[str, frozenset[Right]]
    exact: bool
    fingerprint: str
    durable: bool
    created: float
    modified: float


@dataclass(frozen=True)
class Entry:
    """What a directory holds under one name."""

    name: str
    directory: bool
    tokens: int


class File:
    """An open KV file, known to the kernel by `descriptor`. Close it, or use it in a `with`.

    What changes a file raises Busy while a pass is writing to it.
    """

    __slots__ = ("descriptor",)

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor

    @property
    def closed(self) -> bool:
        return self.descriptor < 0

    @classmethod
    def create(cls) -> Self:
        """A new, empty file without a name; it is gone when it is closed."""
        return cls(_create())

    @classmethod
    def open(cls, path: str, *how: OpenFlag) -> Self:
        """A named file; a relative path begins at one's home. Raises NotFound, Denied, or Exists (with `exclusive`)."""
        flags = kernel.OpenFlags(0)
        for name in how or ("read",):
            flags |= kernel.OpenFlags[name.upper()]
        return cls(_open(path, flags))

    # --- names and rights ---

    def link(self, path: str) -> None:
        """Gives it (one more) name. Raises Exists."""
        _link(self.descriptor, path)

    def change_mode(self, mine: Iterable[Right] = ("read", "append"), others: Iterable[Right] = ()) -> None:
        """What its owner and everybody may do with it, open or not."""
        _change_mode(self.descriptor, _flags(mine), _flags(others))

    def grant(self, user: str, *rights: Right) -> None:
        """What a named user may do beyond that; no rights take it back."""
        _change_grant(self.descriptor, user, _flags(rights))

    @contextlib.asynccontextmanager
    async def lock(self, *, exclusive: bool = True) -> AsyncIterator[None]:
        """`async with file.lock():` waits for an advisory lock: one exclusive holder, or many shared ones; first come,
        first served. It is given up at the end of the block, and when the program ends."""
        handle = Handle(_lock(self.descriptor, exclusive))
        try:
            await handle
            yield
        finally:
            handle.close()

    # --- cutting and joining: no page is copied ---

    def fork(self) -> File:
        """A new file without a name that holds the same tokens: constant time, copy-on-write."""
        return File(_fork(self.descriptor))

    def extract(self, ranges: Sequence[tuple[int, int]]) -> File:
        """A new file without a name of those ranges (first, count), in this order."""
        return File(_extract(self.descriptor, [kernel.Range(first, count) for first, count in ranges]))

    @staticmethod
    def concat(files: Sequence[File]) -> File:
        """A new file without a name of all tokens of these, one after the other."""
        return File(_concat([file.descriptor for file in files]))

    def relocate(self, by: int) -> None:
        """Every position grows by `by`: the states serve there, approximately."""
        _relocate(self.descriptor, by)

    def hide(self, first: int, count: int) -> None:
        """Passes read those tokens no more; they stay in the file."""
        _hide(self.descriptor, kernel.Range(first, count))

    def show(self, first: int, count: int) -> None:
        """Passes read those tokens again."""
        _show(self.descriptor, kernel.Range(first, count))

    def truncate(self, tokens: int) -> None:
        """Keeps the first `tokens`."""
        _truncate(self.descriptor, tokens)

    # --- what it holds ---

    def status(self) -> FileStatus:
        """What it holds now."""
        known = _stat(self.descriptor)
        return FileStatus(
            known.tokens, known.hidden, known.pages, known.next_position, known.shared_pages, list(known.paths),
            known.busy, known.owner, _rights(known.mine), _rights(known.others),
            {grant.user: _rights(grant.rights) for grant in known.grants},
            known.exactness is kernel.Exactness.EXACT, known.fingerprint, known.durable, known.created_ns / 1e9,
            known.modified_ns / 1e9,
        )  # fmt: skip

    def __len__(self) -> int:
        """How many tokens it holds."""
        return _stat(self.descriptor).tokens

    def __bool__(self) -> bool:
        return True

    def tokens(self, first: int = 0, count: int | None = None) -> list[int]:
        """Its tokens from offset `first` on."""
        return list(_tokens(self.descriptor, kernel.Range(first, len(self) - first if count is None else count)))

    def positions(self, first: int = 0, count: int | None = None) -> list[int]:
        """The positions of its tokens from offset `first` on."""
        return list(_positions(self.descriptor, kernel.Range(first, len(self) - first if count is None else count)))

    # --- the rest of its life ---

    async def sync(self) -> None:
        """Returns when the file, as it is now, outlives the daemon and the machine's power. It must have a name."""
        handle = Handle(_sync(self.descriptor))
        try:
            await handle
            _take_sync(handle.number)
        finally:
            handle.close()

    def close(self) -> None:
        """Idempotent."""
        descriptor, self.descriptor = self.descriptor, -1
        if descriptor >= 0:
            with contextlib.suppress(Error):
                _close(descriptor)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()


def unlink(path: str) -> None:
    """Takes the name away; the file goes with its last name and descriptor."""
    _unlink(path)


def rename(path: str, to: str) -> None:
    """Atomic: whatever was called `to` loses that name. Of a directory too, if nothing is called so."""
    _rename(path, to)


def list_directory(path: str = ".") -> list[Entry]:
    """What is in a directory, by name."""
    return [Entry(entry.name, entry.directory, entry.tokens) for entry in _entries(path)]


def _flags(rights: Iterable[Right]) -> kernel.Rights:
    flags = kernel.Rights(0)
    for right in rights:
        flags |= kernel.Rights[right.upper()]
    return flags


def _rights(flags: kernel.Rights) -> frozenset[Right]:
    names: tuple[Right, ...] = ("read", "append")
    return frozenset(name for name in names if kernel.Rights[name.upper()] in flags)
