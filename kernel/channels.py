"""Messages: from a client to a program, and between the programs of one user. Every queue is bounded, and says so.

    client ──▶ Mailbox of the process
    publish ─▶ Mailbox of each subscriber        a slow subscriber loses messages, and is told how many
    push ────▶ Queue ──▶ one of those who pull   a full queue refuses
"""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

from cadenza.kernel.handles import Waitable
from cadenza.kernel.limits import MESSAGE_OVERHEAD_BYTES, QUEUE_MESSAGES, QUEUED_BYTES_PER_USER, QUEUES_PER_USER
from cadenza.kvfs.errors import Full, LimitExceeded


class Message(NamedTuple):
    """`lost`: how many messages before this one did not fit."""

    text: str
    lost: int = 0


class Account:
    """How much text waits in the channels of one user, in bytes; all of them draw on one limit."""

    def __init__(self) -> None:
        self.held = 0

    def fits(self, text: str) -> bool:
        return self.held + size_of(text) <= QUEUED_BYTES_PER_USER

    def hold(self, text: str) -> None:
        self.held += size_of(text)

    def give_back(self, text: str) -> None:
        self.held -= size_of(text)


def size_of(text: str) -> int:
    """Bytes that a waiting message counts as: never nothing."""
    return len(text.encode(errors="replace")) + MESSAGE_OVERHEAD_BYTES


def ensure_account(account: Account, text: str) -> None:
    """Raises Full if `text` is more than the user may have waiting."""
    if not account.fits(text):
        raise Full(f"{account.held} bytes wait in your channels, and {QUEUED_BYTES_PER_USER} may; take some first",
                   "queued_bytes_per_user")


class Source(Waitable):
    """A handle that messages are taken from: ready while there is one."""

    __slots__ = ()
    what = "message"

    def take(self) -> Message | None:
        """The next message, or None if there is none (any more)."""
        raise NotImplementedError


class Mailbox(Source):
    """Messages for one process."""

    __slots__ = ("_account", "_exchange", "_lost", "_messages", "_topic")

    def __init__(self, account: Account, exchange: Exchange | None = None, topic: tuple[str, str] = ("", "")) -> None:
        super().__init__()
        self._account = account
        self._messages: deque[Message] = deque()
        self._lost = 0
        self._exchange = exchange
        self._topic = topic

    def offer(self, text: str) -> bool:
        """Puts a message in; if there is no room it is counted as lost. Answers whether it went in."""
        if len(self._messages) >= QUEUE_MESSAGES or not self._account.fits(text):
            self._lost += 1
            return False
        self._append(Message(text, self._lost))
        self._lost = 0
        return True

    def put(self, text: str) -> None:
        """Puts a message in. Raises Full, and counts nothing as lost, if there is no room."""
        if len(self._messages) >= QUEUE_MESSAGES:
            raise Full(f"{QUEUE_MESSAGES} messages wait already; send again when some are taken", "queue_messages")
        ensure_account(self._account, text)
        self._append(Message(text))

    def _append(self, message: Message) -> None:
        self._account.hold(message.text)
        self._messages.append(message)
        self.signal()

    def take(self) -> Message | None:
        message = self._messages.popleft() if self._messages else None
        if message is not None:
            self._account.give_back(message.text)
        if not self._messages:
            self.unsignal()
        return message

    def close(self) -> None:
        """A subscription ends; what waits is dropped. The client's mailbox lives on with its process."""
        if self._exchange is not None:
            self._exchange.unsubscribe(self._topic, self)
            self.drop()

    def drop(self) -> None:
        """Gives back what waits. Idempotent."""
        while self.take() is not None:
            pass


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

    def __init__(self, account: Account, exchange: Exchange, name: tuple[str, str]) -> None:
        self._account = account
        self._exchange = exchange
        self._name = name
        self._messages: deque[Message] = deque()
        self._takers: list[Pull] = []

    def put(self, text: str) -> None:
        if len(self._messages) >= QUEUE_MESSAGES:
            raise Full(f"queue {self._name[1]!r} holds {QUEUE_MESSAGES} messages, its limit; pull some first",
                       "queue_messages")
        ensure_account(self._account, text)
        self._account.hold(text)
        self._messages.append(Message(text))
        for taker in self._takers:
            taker.signal()

    def take(self) -> Message | None:
        message = self._messages.popleft() if self._messages else None
        if message is not None:
            self._account.give_back(message.text)
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
            self._exchange.forget(self._name, self)


class Exchange:
    """The topics and queues of every user; names are (user, name), so users never meet."""

    def __init__(self) -> None:
        self._topics: dict[tuple[str, str], list[Mailbox]] = {}
        self._queues: dict[tuple[str, str], Queue] = {}
        self._accounts: dict[str, Account] = {}

    def account(self, user: str) -> Account:
        return self._accounts.setdefault(user, Account())

    def publish(self, user: str, topic: str, text: str) -> int:
        """To every subscriber. Answers how many there are."""
        subscribers = self._topics.get((user, topic), [])
        for mailbox in subscribers:
            mailbox.offer(text)
        return len(subscribers)

    def subscribe(self, user: str, topic: str) -> Mailbox:
        mailbox = Mailbox(self.account(user), self, (user, topic))
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
                raise LimitExceeded(f"{QUEUES_PER_USER} queues of this user exist, the limit; empty some",
                                    "queues_per_user")
            self._queues[key] = Queue(self.account(user), self, key)
        return self._queues[key]

    def forget(self, name: tuple[str, str], queue: Queue) -> None:
        if self._queues.get(name) is queue:
            del self._queues[name]

    def statistics(self) -> dict[str, float]:
        held = sum(account.held for account in self._accounts.values())
        return {"topics": len(self._topics), "queues": len(self._queues), "queued_bytes": held}
