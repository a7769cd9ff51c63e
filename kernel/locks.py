"""Advisory locks on files: shared by many or exclusively one's own, first come, first served.

    queue of a file   held: S S S │ waiting: X S S          held are either one X or any number of S
"""

from __future__ import annotations

from collections import OrderedDict

from cadenza.kernel.handles import Waitable
from cadenza.kvfs.file import File


class Lock(Waitable):
    """One wish for the lock of a file: ready when it is held. Closing gives it up, held or not.

    Nobody is kept from the file by it. It outlives the descriptor that it was asked with, and the file's names.
    """

    __slots__ = ("_locks", "exclusive", "file", "given_up")
    what = "lock"

    def __init__(self, locks: Locks, file: File, *, exclusive: bool) -> None:
        super().__init__()
        self._locks = locks
        self.file = file
        self.exclusive = exclusive
        self.given_up = False

    def close(self) -> None:
        if not self.given_up:
            self.given_up = True
            self._locks.give_up(self)


class Queue:
    """Those who want the lock of one file. Every change takes constant time."""

    __slots__ = ("held", "held_exclusively", "waiting")

    def __init__(self) -> None:
        self.held = 0
        self.held_exclusively = False
        self.waiting: OrderedDict[Lock, None] = OrderedDict()

    def remove(self, lock: Lock) -> None:
        if lock.ready:
            self.held -= 1
        else:
            del self.waiting[lock]

    def serve(self) -> None:
        """Whoever may hold the lock now does. A shared one waits behind an exclusive one that came before it."""
        while self.waiting:
            lock = next(iter(self.waiting))
            if self.held and (lock.exclusive or self.held_exclusively):
                return
            del self.waiting[lock]
            self.held += 1
            self.held_exclusively = lock.exclusive
            lock.signal()


class Locks:
    """The queues of all files that anybody wants to lock."""

    def __init__(self) -> None:
        self._queues: dict[File, Queue] = {}

    def ask(self, file: File, *, exclusive: bool) -> Lock:
        """Never blocks."""
        lock = Lock(self, file, exclusive=exclusive)
        queue = self._queues.setdefault(file, Queue())
        queue.waiting[lock] = None
        queue.serve()
        return lock

    def give_up(self, lock: Lock) -> None:
        queue = self._queues[lock.file]
        queue.remove(lock)
        queue.serve()
        if not queue.held:
            del self._queues[lock.file]

    def statistics(self) -> dict[str, int]:
        """Locks held, and wished for but not held."""
        queues = self._queues.values()
        return {"held": sum(queue.held for queue in queues), "waiting": sum(len(queue.waiting) for queue in queues)}
