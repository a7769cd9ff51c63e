"""The open KV files of one process, by small numbers."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from cadenza.kvfs.access import RIGHTS, Rights
from cadenza.kvfs.errors import Busy, Denied, LimitExceeded, NotFound
from cadenza.kvfs.file import File


class Descriptors:
    """Those of a process of `user`. Numbers are never reused while it lives. `close_file` gives a file back to its file
    system."""

    def __init__(self, limit: int, close_file: Callable[[File], None], user: str) -> None:
        self._limit = limit
        self._close_file = close_file
        self._user = user
        self._next = 1
        self._open: dict[int, tuple[File, Rights]] = {}

    def __len__(self) -> int:
        return len(self._open)

    def __iter__(self) -> Iterator[File]:
        return (file for file, _ in self._open.values())

    def ensure_room(self) -> None:
        if len(self._open) >= self._limit:
            raise LimitExceeded(f"process has {self._limit} files open, its limit; close some", "descriptors")

    def add(self, file: File, rights: Rights = RIGHTS) -> int:
        number = self._next
        self._next += 1
        self._open[number] = (file, rights)
        return number

    def get(self, number: int, right: str) -> File:
        """The file, if it was opened with `right` ("read" or "append") and its owner still lets the user do that.
        Raises NotFound or Denied."""
        file, rights = self._find(number)
        if right not in rights:
            raise Denied(f"descriptor {number} was opened without {right!r}; open it with that flag")
        if right not in file.access.of(file.owner, self._user):
            raise Denied(f"descriptor {number} is of a file that {self._user} may not {right} any more: {file.owner}, "
                         "its owner, has changed that")
        return file

    def named(self, number: int) -> File:
        """The file, whatever it was opened for. Raises NotFound."""
        return self._find(number)[0]

    def close(self, number: int) -> None:
        """Raises NotFound, or Busy if it is the last descriptor of a file that a pass appends to."""
        file, _ = self._find(number)
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

    def _find(self, number: int) -> tuple[File, Rights]:
        found = self._open.get(number)
        if found is None:
            raise NotFound(f"descriptor {number} is not open")
        return found
