"""Around a speaker, be it the teacher or the model: runs its calls under the virtual clock and interrupts it.

A token takes a fixed time. What is pending is delivered after the next token outside a critical section, all of it
together, in the order in which it came; a trap waits for the first to come.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from cadenza.inferlets.async_calls.cml import Call, Malformed, Parser, Trap, written_interrupt
from train.agent import USER, Agent
from train.dialogue import Interruption, Role, Turn
from train.executor import Executor
from train.jobs import Job, Reply, UserInterrupt
from train.world import PIECES, Pieces

UNKNOWN_FUNCTION = "error: unknown function"

Event = str | UserInterrupt
"""A call, by its id, has returned; or the user says something."""


@dataclass
class Runtime:
    """`calls` are those that were made, in their order, by id."""

    job: Job
    parser: Parser = field(default_factory=Parser)
    calls: dict[str, str] = field(default_factory=dict)
    stuck: bool = False

    def __post_init__(self) -> None:
        self.executor = Executor(self.job.slots)
        self.users = deque(self.job.interrupts)

    def hear(self, piece: str) -> list[Event]:
        """One token was said: time passes. Returns what comes in after it. Raises `Malformed`."""
        self.executor.advance(self.job.token_seconds)
        for event in self.parser.feed(piece):
            if isinstance(event, Call):
                self._start(event)
            elif isinstance(event, Trap):
                self._wait()
        return [] if self.parser.critical else self._pending()

    def written(self, event: Event) -> str:
        """The event as an interrupt."""
        if isinstance(event, UserInterrupt):
            return written_interrupt(USER, event.text)
        return written_interrupt(event, self._value(event))

    def _start(self, call: Call) -> None:
        if call.id is None or call.id in self.calls:
            raise Malformed(f"a call with the id {call.id}")
        self.calls[call.id] = call.code
        reply = self._reply(call.code)
        self.executor.submit(call.id, reply.seconds if reply else 0.0)

    def _value(self, identity: str) -> str:
        reply = self._reply(self.calls[identity])
        return reply.value if reply else UNKNOWN_FUNCTION

    def _reply(self, code: str) -> Reply | None:
        """What the called function returns; None if there is no such function."""
        try:
            return self.job.reply_to(code)
        except Malformed:
            return None

    def _wait(self) -> None:
        self.stuck = self.executor.idle and not self.users
        if not self.stuck:
            self.executor.wait(self.users[0].seconds if self.users else float("inf"))

    def _pending(self) -> list[Event]:
        events: list[Event] = [*self.executor.take()]
        while self.users and self.users[0].seconds <= self.executor.now:
            events.append(self.users.popleft())
        return events


def asynchronous_turn(job: Job, pieces: Pieces = PIECES.findall) -> Turn:
    """What the teacher says, piece by piece, and what interrupts it."""
    agent, runtime = Agent(job), Runtime(job)
    said = ""
    interruptions: list[Interruption] = []
    while utterance := agent.utterance():
        for piece in pieces(utterance):
            said += piece
            events = runtime.hear(piece)
            for event in events:
                agent.hear(event)
            if events:
                interruptions.append(Interruption(len(said), "".join(map(runtime.written, events))))
    return Turn(Role.ASSISTANT, said, tuple(interruptions))


