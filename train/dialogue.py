"""A dialogue: turns of a chat, and the one way in which they are written down as text.

<|begin|><|system|>TEXT<|end|><|user|>TEXT<|end|><|assistant|><|call|>calculator(17*23)<|end|>
<|tool|>391<|end|><|assistant|>17 times 23 is 391.<|end|>            (without the line break)
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

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


SPECIAL_TOKENS: tuple[str, ...] = (PAD, BEGIN, END, *(role.token for role in Role), CALL)


@dataclass(frozen=True)
class Turn:
    """One turn. A call is an assistant's turn whose text begins with `<|call|>`."""

    role: Role
    text: str

    @property
    def is_call(self) -> bool:
        return self.role is Role.ASSISTANT and self.text.startswith(CALL)


@dataclass(frozen=True)
class Dialogue:
    """Turns in order, and the kind of task they were made for."""

    kind: str
    turns: tuple[Turn, ...]

    def segments(self) -> Iterator[tuple[str, bool]]:
        """Pieces of the rendered text in order, each with whether the model learns to say it.

        Learnt are the words of the assistant and the `<|end|>` after them; the special tokens between
        pieces make encoding piece by piece equal to encoding the whole.
        """
        yield BEGIN, False
        for turn in self.turns:
            yield turn.role.token, False
            yield turn.text + END, turn.role is Role.ASSISTANT

    def render(self) -> str:
        """The whole dialogue as text, equal to what the chat template gives for `messages()`."""
        return "".join(text for text, _ in self.segments())

    def messages(self) -> list[dict[str, str]]:
        """The dialogue as chat messages: `{"role": ..., "content": ...}`."""
        return [{"role": turn.role.value, "content": turn.text} for turn in self.turns]

    def questions(self) -> Iterator[tuple[str, str]]:
        """For each of the assistant's turns: the text before it, ready to be continued, and what it should say."""
        before = BEGIN
        for turn in self.turns:
            before += turn.role.token
            if turn.role is Role.ASSISTANT:
                yield before, turn.text
            before += turn.text + END


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
