"""What a model that knows the solution would say, as a function of all that it has before it.

A teacher is asked for the next utterance, and told what was said and what came back. Its turn:

    asynchronous    says every call that can be said, traps when there is none, goes on when a result comes
    one by one      says one call and ends its turn; the result is a tool's turn
    parallel        says every call that can be said and ends its turn; the results are tools' turns

Of several calls that can be said it takes them in the order of `urgency`: that of the calls that return together.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from benchmarks.calls.tasks import Call, Task
from benchmarks.calls.words import CALL, END_OF_TURN, Words
from cadenza.inferlets.async_calls.cml import END, HEAD, INTR, WRITTEN_TRAP, written_call
from cadenza.kernel.device.batch import Int32

ANSWER = "Done."
SAID_SECONDS = 0.1                     # that it takes to say a call, about
Urgency = Callable[[Task, int, int], float]
"""How urgent a call is, by its chain and its step: the highest is said first."""


def longest_first(task: Task, chain: int, step: int) -> float:
    return task.chains[chain][step].seconds


def critical_path(task: Task, chain: int, step: int) -> float:
    """The time that all that hangs on it takes, to say and to execute."""
    return sum(call.seconds + SAID_SECONDS for call in task.chains[chain][step:])


ORDERS: dict[str, Urgency] = {"longest-first": longest_first, "critical-path": critical_path}


@dataclass
class Teacher:
    """Where the solution of one task stands. Calls are named 1, 2, … in the order in which they are said."""

    task: Task
    urgency: Urgency
    said: list[tuple[int, int]] = field(default_factory=list)       # chain and step of each call
    returned: set[tuple[int, int]] = field(default_factory=set)

    def sayable(self) -> list[tuple[int, int]]:
        """The calls that nothing stands in the way of, the most urgent first."""
        steps = [sum(chain == one for one, _ in self.said) for chain in range(len(self.task.chains))]
        free = [(chain, step) for chain, step in enumerate(steps) if step < len(self.task.chains[chain])
                and (not step or (chain, step - 1) in self.returned)]
        return sorted(free, key=lambda place: -self.urgency(self.task, *place))

    def say(self, place: tuple[int, int]) -> Call:
        self.said.append(place)
        return self.task.chains[place[0]][place[1]]

    def hear(self, identity: str) -> None:
        """The call of that name has returned."""
        self.returned.add(self.said[int(identity) - 1])

    def hear_next(self) -> None:
        """The first call of those that have not returned has."""
        self.returned.add(next(place for place in self.said if place not in self.returned))

    @property
    def waits(self) -> bool:
        return len(self.returned) < len(self.said)

    def utterance(self) -> str:
        """What is said next; it changes what is known to have been said."""
        raise NotImplementedError


class Asynchronous(Teacher):
    def utterance(self) -> str:
        if places := self.sayable():
            call = self.say(places[0])
            return written_call(call.code, str(len(self.said)))
        return WRITTEN_TRAP if self.waits else ANSWER + END_OF_TURN


class OneByOne(Teacher):
    most = 1

    def utterance(self) -> str:
        places = self.sayable()[: self.most]
        codes = [self.say(place).code for place in places]
        return "".join(CALL + code for code in codes) + END_OF_TURN if codes else ANSWER + END_OF_TURN


class Parallel(OneByOne):
    most = 1_000_000


MANNERS: dict[str, type[Teacher]] = {"Functions that interrupt": Asynchronous, "Functions one by one": OneByOne,
                                     "Functions all at once": Parallel}


class Script:
    """Reads a context and answers what follows. The teacher is the one whose prompt stands at the beginning."""

    def __init__(self, words: Words) -> None:
        self._words = words
        self._special = words.special
        self._teachers: dict[tuple[int, ...], Callable[[], Teacher]] = {}

    def teach(self, prompt: str, teacher: Callable[[], Teacher]) -> None:
        """Contexts that begin with `prompt`, up to where the assistant speaks, are this teacher's."""
        self._teachers[tuple(self._words.tokens(prompt))] = teacher

    def __call__(self, context: Int32) -> Sequence[int]:
        tokens: list[int] = context.tolist()
        start = tokens.index(self._special["<|assistant|>"]) + 1
        teacher = self._teachers[tuple(tokens[:start])]()
        ahead: list[int] = []                          # of an utterance, what has not been said yet
        for heard, piece in self._pieces(tokens[start:]):
            if heard:
                teacher.hear(self._words.text(piece)) if piece else teacher.hear_next()
                continue
            while piece:
                ahead = ahead or self._words.tokens(teacher.utterance())
                common = min(len(ahead), len(piece))
                if piece[:common] != ahead[:common]:
                    return [self._special[END_OF_TURN]]        # never said by this teacher: a mask was in the way
                ahead, piece = ahead[common:], piece[common:]
        return ahead or self._words.tokens(teacher.utterance())

    def _pieces(self, tokens: list[int]) -> Iterator[tuple[bool, list[int]]]:
        """What the model has said (False), and the ids of what came back (True; a tool's turn has none)."""
        said: list[int] = []
        at, special = 0, self._special
        while at < len(tokens):
            token = tokens[at]
            if token in (special[INTR], special["<|tool|>"]):
                yield False, said
                said, last = [], tokens.index(special[END if token == special[INTR] else END_OF_TURN], at)
                yield True, tokens[at + 1 : tokens.index(special[HEAD], at)] if token == special[INTR] else []
                at = last
            elif token != special["<|assistant|>"]:
                said.append(token)
            at += 1
        yield False, said
