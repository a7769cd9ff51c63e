"""How the model shall act: first come, first served.

Everything that asks for something, in the order in which it stands in the context, gets its utterance: a request its
call; an interrupt what follows from it (the chain's next call, or what came of it in words); nothing else left to say
but calls still run: a trap; nothing at all: the end. So the model always goes on from what it served last.

A call's id says what its result is for: `film then route`, where the route is to be tracked with what the film brings,
and `route` alone, where that will be told. The model writes it while it reads the request, and the interrupt brings it
back: what follows, and with which value, is then one look away. With the noun alone for an id all of it had to be found
again through the request, in one step: one chain in five went on as another.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from cadenza.inferlets.async_calls.cml import CALL, WRITTEN_TRAP, written_call
from train.functions import Chain
from train.jobs import Job, Reply, UserInterrupt

USER = "user"
"""The id of an interrupt that the user made."""
THEN = " then "
"""Stands in an id between what is called and what its result is for."""


@dataclass(frozen=True)
class Called:
    """A step of a chain, with the text of its call."""

    chain: Chain
    step: int
    code: str

    @property
    def noun(self) -> str:
        return self.chain.requests[self.step].function.noun

    @property
    def id(self) -> str:
        """What is called, and what its result is for."""
        return THEN.join(request.function.noun for request in self.chain.requests[self.step : self.step + 2])


def told(noun: str, reply: Reply) -> str:
    """What came of a call, in words."""
    if reply.failed:
        return f"The {noun} failed: {reply.value.removeprefix('error: ')}."
    return f"The {noun} is {reply.value}."


def left_out(noun: str) -> str:
    return f"The {noun} is left out."


@dataclass
class Agent:
    """The teacher. `said` is one utterance, whole; calls that it made are found in `calls` by id."""

    job: Job
    queue: deque[Chain | str | UserInterrupt] = field(default_factory=deque)
    calls: dict[str, Called] = field(default_factory=dict)
    outstanding: set[str] = field(default_factory=set)
    dropped: set[str] = field(default_factory=set)
    spoke: bool = False

    def __post_init__(self) -> None:
        self.queue.extend(self.job.chains)

    def hear(self, event: str | UserInterrupt) -> None:
        """A call (its id) has returned, or the user has interrupted."""
        self.queue.append(event)
        if isinstance(event, str):
            self.outstanding.remove(event)

    def utterance(self) -> str:
        """What is said next; empty at the end."""
        while self.queue:
            said = self._serve(self.queue.popleft())
            if said.startswith(CALL):
                return said
            if said:
                space, self.spoke = " " if self.spoke else "", True
                return space + said
        return WRITTEN_TRAP if self.outstanding else ""

    def _serve(self, item: Chain | str | UserInterrupt) -> str:
        if isinstance(item, Chain):
            return self._start(item)
        if isinstance(item, UserInterrupt):
            if item.chain:
                return self._start(item.chain)
            self.dropped.add(item.left_out)
            return left_out(item.left_out)
        called = self.calls[item]
        return "" if called.noun in self.dropped else self._go_on(called)

    def _start(self, chain: Chain) -> str:
        return "" if chain.requests[-1].function.noun in self.dropped else self._call(chain, 0, "")

    def _go_on(self, called: Called) -> str:
        reply = self.job.replies[called.noun]
        if reply.failed or called.step + 1 == len(called.chain.requests):
            return told(called.noun, reply)
        return self._call(called.chain, called.step + 1, reply.value)

    def _call(self, chain: Chain, step: int, before: str) -> str:
        called = Called(chain, step, chain.requests[step].code(before))
        self.calls[called.id] = called
        self.outstanding.add(called.id)
        return written_call(called.code, called.id)
