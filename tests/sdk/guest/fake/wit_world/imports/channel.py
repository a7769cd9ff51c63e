"""Messages: the inbox and queues by name; a topic is a queue here."""

from dataclasses import dataclass

from wit_world.imports.types import refuse
from wit_world.toy import toy


@dataclass
class Message:
    text: str
    lost: int


def send(text: str) -> None:
    toy.sent.append(text)


def receive() -> int:
    return toy.handle(toy.inbox, float("inf"))


def push(queue: str, text: str) -> None:
    if queue == "full":
        refuse("FULL", "the queue is full")
    toy.queues.setdefault(queue, type(toy.inbox)()).append(text)


def publish(topic: str, text: str) -> int:
    push(topic, text)
    return 1


def pull(queue: str) -> int:
    return toy.handle(toy.queues.setdefault(queue, type(toy.inbox)()), float("inf"))


def subscribe(topic: str) -> int:
    return pull(topic)


def take_message(source: int) -> Message | None:
    waiting = toy.get(toy.held, source)
    return Message(waiting.popleft(), 1) if waiting else None
