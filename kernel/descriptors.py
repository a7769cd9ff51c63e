"""The open KV files of one process, by small numbers."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from cadenza.kvfs.errors import Busy, Denied, LimitExceeded, NotFound
from cadenza.kvfs.file import File

ALL_RIGHTS = frozenset({"read", "append"})


class Descriptors:
    """Numbers are never reused while the process lives. `close_file` gives a file back to its file system."""

    def __init__(self, limit: int, close_file: Callable[[File], None]) -> None:
        self._limit = limit
        self._close_file = close_file
        self._next = 1
        self._open: dict[int, tuple[File, frozenset[str]]] = {}

    def __len__(self) -> int:
        return len(self._open)

    def __iter__(self) -> Iterator[File]:
        return (file for file, _ in self._open.values())

    def ensure_room(self) -> None:
        if len(self._open) >= self._limit:
            raise LimitExceeded(f"process has {self._limit} files open, its limit; close some", "descriptors")

    def add(self, file: File, rights: frozenset[str] = ALL_RIGHTS) -> int:
        number = self._next
        self._next += 1
        self._open[number] = (file, rights)
        return number

    def get(self, number: int, right: str) -> File:
        """The file, if it was opened with `right` ("read" or "append"). Raises NotFound or Denied."""
        if number not in self._open:
            raise NotFound(f"descriptor {number} is not open")
        file, rights = self._open[number]
        if right not in rights:
            raise Denied(f"descriptor {number} was opened without {right!r}; open it with that flag")
        return file

    def close(self, number: int) -> None:
        """Raises NotFound, or Busy if it is the last descriptor of a file that a pass appends to."""
        if number not in self._open:
            raise NotFound(f"descriptor {number} is not open")
        file, _ = self._open[number]
        if file.busy and file.open_count == 2:      # this one, and the pass itself
            raise Busy(f"descriptor {number} is being appended to; stop or wait for what does so, then close it")
        del self._open[number]
        self._close_file(file)

    def close_all(self) -> None:
        files, self._open = list(self), {}
        for file in files:
            self._close_file(file)

    def pages(self) -> int:
        """Pages of all open files, however often one is open."""
        return sum(file.page_count for file in set(self))
