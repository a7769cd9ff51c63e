"""Messages: from a client to a program, and between the programs of one user. Every queue is bounded, and says so.

    client ──▶ Mailbox of the process
    publish ─▶ Mailbox of each subscriber        a slow subscriber loses messages, and is told how many
    push ────▶ Queue ──▶ one of those who pull   a full queue refuses
"""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

from cadenza.kernel.handles import Waitable
from cadenza.kernel.limits import QUEUE_MESSAGES, QUEUES_PER_USER
from cadenza.kvfs.errors import Full, LimitExceeded


class Message(NamedTuple):
    """`lost`: how many messages before this one did not fit."""

    text: str
    lost: int = 0


class Source(Waitable):
    """A handle that messages are taken from: ready while there is one."""

    __slots__ = ()

    def take(self) -> Message | None:
        """The next message, or None if there is none (any more)."""
        raise NotImplementedError


class Mailbox(Source):
    """Messages for one process."""

    __slots__ = ("_exchange", "_lost", "_messages", "_topic")

    def __init__(self, exchange: Exchange | None = None, topic: tuple[str, str] = ("", "")) -> None:
        super().__init__()
        self._messages: deque[Message] = deque()
        self._lost = 0
        self._exchange = exchange
        self._topic = topic

    def offer(self, text: str) -> bool:
        """Puts a message in; if there is no room it is counted as lost. Answers whether it went in."""
        if len(self._messages) >= QUEUE_MESSAGES:
            self._lost += 1
            return False
        self._messages.append(Message(text, self._lost))
        self._lost = 0
        self.signal()
        return True

    def put(self, text: str) -> None:
        """Puts a message in. Raises Full, and counts nothing as lost, if there is no room."""
        if len(self._messages) >= QUEUE_MESSAGES:
            raise Full(f"{QUEUE_MESSAGES} messages wait already; send again when some are taken", "queue_messages")
        self._messages.append(Message(text, 0))
        self.signal()

    def take(self) -> Message | None:
        message = self._messages.popleft() if self._messages else None
        if not self._messages:
            self.unsignal()
        return message

    def close(self) -> None:
        if self._exchange is not None:
            self._exchange.unsubscribe(self._topic, self)


class Pull(Source):
    """One process's end of a queue."""

    __slots__ = ("_queue",)

    def __init__(self, queue: Queue) -> None:
        super().__init__()
        self._queue = queue

    def take(self) -> Message | None:
        return self._queue.take()

    def close(self) -> None:
        self._queue.leave(self)


class Queue:
    """Messages of which each goes to one taker. Lives while it holds a message or has a taker."""

    def __init__(self, exchange: Exchange, name: tuple[str, str]) -> None:
        self._exchange = exchange
        self._name = name
        self._messages: deque[Message] = deque()
        self._takers: list[Pull] = []

    def put(self, text: str) -> None:
        if len(self._messages) >= QUEUE_MESSAGES:
            raise Full(f"queue {self._name[1]!r} holds {QUEUE_MESSAGES} messages, its limit; pull some first",
                       "queue_messages")
        self._messages.append(Message(text))
        for taker in self._takers:
            taker.signal()

    def take(self) -> Message | None:
        message = self._messages.popleft() if self._messages else None
        if not self._messages:
            for taker in self._takers:
                taker.unsignal()
            self._forget_if_unused()
        return message

    def join(self) -> Pull:
        taker = Pull(self)
        self._takers.append(taker)
        if self._messages:
            taker.signal()
        return taker

    def leave(self, taker: Pull) -> None:
        if taker in self._takers:
            self._takers.remove(taker)
        self._forget_if_unused()

    def _forget_if_unused(self) -> None:
        if not self._messages and not self._takers:
            self._exchange.forget(self._name)


class Exchange:
    """The topics and queues of every user; names are (user, name), so users never meet."""

    def __init__(self) -> None:
        self._topics: dict[tuple[str, str], list[Mailbox]] = {}
        self._queues: dict[tuple[str, str], Queue] = {}

    def publish(self, user: str, topic: str, text: str) -> int:
        """To every subscriber. Answers how many there are."""
        subscribers = self._topics.get((user, topic), [])
        for mailbox in subscribers:
            mailbox.offer(text)
        return len(subscribers)

    def subscribe(self, user: str, topic: str) -> Mailbox:
        mailbox = Mailbox(self, (user, topic))
        self._topics.setdefault((user, topic), []).append(mailbox)
        return mailbox

    def unsubscribe(self, topic: tuple[str, str], mailbox: Mailbox) -> None:
        subscribers = self._topics.get(topic, [])
        if mailbox in subscribers:
            subscribers.remove(mailbox)
        if not subscribers:
            self._topics.pop(topic, None)

    def queue(self, user: str, name: str) -> Queue:
        """The queue of that name, made if need be. Raises LimitExceeded past QUEUES_PER_USER."""
        key = (user, name)
        if key not in self._queues:
            if sum(owner == user for owner, _ in self._queues) >= QUEUES_PER_USER:
                raise LimitExceeded(f"{QUEUES_PER_USER} queues of this user exist, the limit; empty some", "queues")
            self._queues[key] = Queue(self, key)
        return self._queues[key]

    def forget(self, name: tuple[str, str]) -> None:
        self._queues.pop(name, None)

    def statistics(self) -> dict[str, float]:
        return {"topics": len(self._topics), "queues": len(self._queues)}
