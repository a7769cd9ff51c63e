"""Files of the KV file system: ordered lists of tokens whose keys and values the model has computed."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from types import TracebackType
from typing import Literal, Self

from wit_world.imports import kv as kernel

from .errors import Error, checked

OpenFlag = Literal["read", "append", "create", "exclusive", "truncate"]

_create = checked(kernel.create)
_open = checked(kernel.open)
_fork = checked(kernel.fork)
_truncate = checked(kernel.truncate)
_stat = checked(kernel.stat)
_unlink = checked(kernel.unlink)
_close = checked(kernel.close)


@dataclass(frozen=True)
class FileStatus:
    """`tokens` held, on `pages`, of which `shared_pages` are other files' too. `busy`: a pass is writing to it."""

    tokens: int
    pages: int
    next_position: int
    shared_pages: int
    path: str
    busy: bool


class File:
    """An open KV file, known to the kernel by `descriptor`. Close it, or use it in a `with`."""

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
        """A named file. Raises NotFound, Denied, or Exists (with `exclusive`)."""
        flags = kernel.OpenFlags(0)
        for name in how or ("read",):
            flags |= kernel.OpenFlags[name.upper()]
        return cls(_open(path, flags))

    def fork(self) -> File:
        """A new file without a name that holds the same tokens: constant time, copy-on-write."""
        return File(_fork(self.descriptor))

    def truncate(self, tokens: int) -> None:
        """Keeps the first `tokens`. Raises Busy while a pass is writing to the file."""
        _truncate(self.descriptor, tokens)

    def status(self) -> FileStatus:
        """What it holds now."""
        known = _stat(self.descriptor)
        return FileStatus(
            known.tokens, known.pages, known.next_position, known.shared_pages, known.path, known.busy
        )

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
    """Takes the name away; the file goes with its last descriptor."""
    _unlink(path)
