"""How many files each user has."""

from __future__ import annotations

from collections import Counter

from cadenza.kvfs.errors import LimitExceeded
from cadenza.kvfs.file import File


class Census(set[File]):
    """Every file alive. It counts those that users made; snapshots that the kernel takes are not users' business."""

    def __init__(self, files_per_user: int) -> None:
        super().__init__()
        self._limit = files_per_user
        self._made: set[File] = set()
        self._count: Counter[str] = Counter()

    def entries(self, user: str) -> int:
        """Files alive that `user` made, and their names beyond the first of each."""
        return self._count[user]

    def ensure_room(self, user: str) -> None:
        """Raises LimitExceeded if one file or name more is too many for `user`."""
        if self._count[user] >= self._limit:
            raise LimitExceeded(f"user {user} has {self._limit} KV files and names, the limit of a user: close or "
                                "remove some ('cadenza ls' lists those with names)", "files_per_user")

    def enter(self, file: File) -> File:
        """`file` was made by its owner, and counts until it is closed. Answers it."""
        self._made.add(file)
        self._count[file.owner] += 1
        return file

    def count_names(self, user: str, change: int) -> None:
        """So many names beyond the first of a file have come, or gone if negative."""
        self._count[user] += change

    def discard(self, file: object) -> None:
        """It is closed: it has no names any more."""
        super().discard(file)
        if isinstance(file, File) and file in self._made:
            self._made.remove(file)
            self._count[file.owner] -= 1
            if not self._count[file.owner]:
                del self._count[file.owner]
