"""A dialogue: turns of a chat, and the one way in which they are written down as text.

<|begin|><|system|>TEXT<|end|><|user|>TEXT<|end|><|assistant|><|call|>calculator(17*23)<|end|>
<|tool|>391<|end|><|assistant|>17 times 23 is 391.<|end|>            (without the line break)
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

from cadenza.inferlets.async_calls import cml

PAD = "<|pad|>"
BEGIN = "<|begin|>"
END = "<|end|>"
CALL = "<|call|>"


class Role(StrEnum):
    """Who speaks in a turn; the value is also the role's name in a chat message."""

    SYSTEM = "system"
    USER = "user"
    ASSISTANT = "assistant"
    TOOL = "tool"

    @property
    def token(self) -> str:
        """The special token that opens a turn of this role."""
        return f"<|{self.value}|>"


SPECIAL_TOKENS: tuple[str, ...] = (PAD, BEGIN, END, *(role.token for role in Role), CALL, *cml.RESERVED)


@dataclass(frozen=True)
class Interruption:
    """What the runtime writes into an assistant's turn, after so many characters of what the assistant says itself."""

    after: int
    text: str


@dataclass(frozen=True)
class Turn:
    """One turn. A call is an assistant's turn whose text begins with `<|call|>`.

    `text` is what its speaker says; `interruptions`, in order of their places, stand in between and are never learnt.
    """

    role: Role
    text: str
    interruptions: tuple[Interruption, ...] = ()

    @property
    def written(self) -> str:
        """The text with the interruptions in it."""
        parts: list[str] = []
        done = 0
        for interruption in self.interruptions:
            parts += [self.text[done : interruption.after], interruption.text]
            done = interruption.after
        return "".join(parts) + self.text[done:]

    @property
    def is_call(self) -> bool:
        return self.role is Role.ASSISTANT and self.text.startswith(CALL)


@dataclass(frozen=True)
class Dialogue:
    """Turns in order, and the kind of task they were made for."""

    kind: str
    turns: tuple[Turn, ...]

    def render(self) -> str:
        """The whole dialogue as text, equal to what the chat template gives for `messages()`."""
        return BEGIN + "".join(turn.role.token + turn.written + END for turn in self.turns)

    def messages(self) -> list[dict[str, str]]:
        """The dialogue as chat messages: `{"role": ..., "content": ...}`."""
        return [{"role": turn.role.value, "content": turn.written} for turn in self.turns]

    def questions(self) -> Iterator[tuple[str, str]]:
        """For each of the assistant's turns: the text before it, ready to be continued, and what it should say."""
        before = BEGIN
        for turn in self.turns:
            before += turn.role.token
            if turn.role is Role.ASSISTANT:
                yield before, turn.written
            before += turn.written + END


def system(text: str) -> Turn:
    return Turn(Role.SYSTEM, text)


def user(text: str) -> Turn:
    return Turn(Role.USER, text)


def assistant(text: str) -> Turn:
    return Turn(Role.ASSISTANT, text)


def call(tool: str, argument: str) -> Turn:
    return Turn(Role.ASSISTANT, f"{CALL}{tool}({argument})")


def result(text: str) -> Turn:
    return Turn(Role.TOOL, text)
