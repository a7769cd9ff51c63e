"""Messages: to and from the client, to every program that subscribes, to one program that pulls."""

from __future__ import annotations

import functools
from types import TracebackType
from typing import Self

from wit_world.imports import channel as kernel

from .errors import checked
from .events import Handle

_send = checked(kernel.send)
_receive = checked(kernel.receive)
_publish = checked(kernel.publish)
_subscribe = checked(kernel.subscribe)
_push = checked(kernel.push)
_pull = checked(kernel.pull)
_take_message = checked(kernel.take_message)


class Source:
    """Where messages come from: `await source.receive()`, or `async for text in source`. Close it, or use a `with`.

    `lost` counts the messages that did not fit the queue, so that nothing is lost silently.
    """

    __slots__ = ("handle", "lost")

    def __init__(self, number: int) -> None:
        self.handle = Handle(number)
        self.lost = 0

    async def receive(self) -> str:
        """The next message. Raises Closed when none can come any more."""
        while True:
            await self.handle
            message = _take_message(self.handle.number)
            if message is not None:
                self.lost += message.lost
                return message.text

    def receive_nowait(self) -> str | None:
        """The next message if one is there. Never blocks."""
        message = _take_message(self.handle.number)
        if message is None:
            return None
        self.lost += message.lost
        return message.text

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> str:
        return await self.receive()

    def close(self) -> None:
        """Takes no more messages. Idempotent."""
        self.handle.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()


def send(text: str) -> None:
    """A message to the client; kept, up to a limit, when none is attached. Never blocks."""
    _send(text)


@functools.cache
def messages() -> Source:
    """The messages of the client: always the same source."""
    return Source(_receive())


async def receive() -> str:
    """The client's next message."""
    return await messages().receive()


def publish(topic: str, text: str) -> int:
    """A message to every program of this user that is subscribed to `topic`; answers how many. Never blocks."""
    return _publish(topic, text)


def subscribe(topic: str) -> Source:
    """What is published under `topic` from now on."""
    return Source(_subscribe(topic))


def push(queue: str, text: str) -> None:
    """A message to one program of this user, now or later. Raises Full when the queue is. Never blocks."""
    _push(queue, text)


def pull(queue: str) -> Source:
    """What is pushed to `queue`; each message goes to one program."""
    return Source(_pull(queue))
