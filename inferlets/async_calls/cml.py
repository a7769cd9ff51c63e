"""CML, the language in which a model calls functions without waiting for them (AsyncLM, arXiv 2412.07017, section 4).

    call := [CALL] (id [HEAD])? code [END]      said by the model; without an id it never interrupts
    trap := [TRAP] [END]                        said by the model: it has nothing to say until something comes
    intr := [INTR] id [HEAD] value [END]        written by the runtime only

What the model says is read by a `Parser`, in pieces of any size: a delimiter may be split anywhere. Between [CALL] and
its [END], and between [TRAP] and its [END], the model is in a critical section: nothing may interrupt it.

    OUTSIDE ──[CALL]──▶ OPENED ──[HEAD]──▶ CODE ──[END]──▶ OUTSIDE       (OPENED ──[END]──▶ OUTSIDE: no id)
    OUTSIDE ──[TRAP]──▶ TRAPPED ──[END]──▶ OUTSIDE
"""

from __future__ import annotations

import ast
from dataclasses import dataclass
from enum import Enum

CALL, INTR, TRAP, END, HEAD = "[CALL]", "[INTR]", "[TRAP]", "[END]", "[HEAD]"
RESERVED: tuple[str, ...] = (CALL, INTR, TRAP, END, HEAD)
MOST_ID_CHARACTERS = 64
MOST_CODE_CHARACTERS = 4096


class Malformed(ValueError):
    """What was said is no CML, or what should be written can't be."""


class State(Enum):
    """Where in the grammar the model is; see the picture above."""

    OUTSIDE = "outside"
    OPENED = "opened"
    CODE = "code"
    TRAPPED = "trapped"


@dataclass(frozen=True)
class Text:
    """Words outside calls and traps, as far as they are known; what follows may belong to the same sentence."""

    text: str


@dataclass(frozen=True)
class Call:
    """A whole call; `id` is None when its result shall not interrupt, and is cut to MOST_ID_CHARACTERS. The code may be
    anything, also nothing."""

    id: str | None
    code: str


@dataclass(frozen=True)
class Trap:
    """The model waits."""


Event = Text | Call | Trap

FOLLOWERS: dict[State, frozenset[str]] = {
    State.OUTSIDE: frozenset({CALL, TRAP}),
    State.OPENED: frozenset({HEAD, END}),
    State.CODE: frozenset({END}),
    State.TRAPPED: frozenset({END}),
}


class Parser:
    """Reads what the model says. `feed` gives the events that are now certain and keeps the rest for later.

    After a `Malformed` the parser is of no more use.
    """

    def __init__(self) -> None:
        self.state = State.OUTSIDE
        self._pending = ""      # the end of what was fed: no delimiter yet, but it may become one
        self._text = ""         # of the call: its id or its code so far
        self._id: str | None = None

    @property
    def critical(self) -> bool:
        """Whether nothing may be written into the context now."""
        return self.state is not State.OUTSIDE

    @property
    def reserved_allowed(self) -> frozenset[str]:
        """Which reserved tokens may be sampled next so that well-formed CML can still come of it."""
        return FOLLOWERS[self.state]

    @property
    def text_allowed(self) -> bool:
        """Whether anything but a reserved token may be sampled next."""
        return self.state is not State.TRAPPED and not self.overlong

    @property
    def overlong(self) -> bool:
        """Whether a call has as many characters as it may have: whoever listens closes it."""
        return len(self._text) >= MOST_CODE_CHARACTERS

    @property
    def may_finish(self) -> bool:
        """Whether the turn may end here."""
        return self.state is State.OUTSIDE

    def feed(self, said: str) -> list[Event]:
        """The events that this piece completes. Raises `Malformed` for a delimiter where it may not stand."""
        events: list[Event] = []
        rest = self._pending + said
        self._pending = ""
        while found := first_reserved(rest):
            start, token = found
            events += self.words(rest[:start])
            events += self.delimiter(token)
            rest = rest[start + len(token) :]
        held = may_become_reserved(rest)
        self._pending = rest[len(rest) - held :]
        events += self.words(rest[: len(rest) - held])
        return events

    def finish(self) -> list[Event]:
        """The end of the turn: gives what was held back. Raises `Malformed` inside a call or a trap."""
        rest, self._pending = self._pending, ""
        events = self.words(rest)
        if self.critical:
            raise Malformed(f"the turn ended {self.state.value}, before {END}")
        return events

    @property
    def held(self) -> str:
        """The end of what was fed, if it may be the beginning of a delimiter."""
        return self._pending

    def words(self, text: str) -> list[Event]:
        """As `feed`, of text that is known to hold no delimiter. Not beside `feed`."""
        if not text:
            return []
        if self.state is State.OUTSIDE:
            return [Text(text)]
        if self.state is State.TRAPPED:
            raise Malformed(f"{text!r} stands between {TRAP} and {END}")
        self._text += text
        return []

    def delimiter(self, token: str) -> list[Event]:
        """As `feed`, of one that came as a token of its own."""
        if token not in FOLLOWERS[self.state]:
            raise Malformed(f"{token} stands {self.state.value}")
        if token == HEAD:
            self._id = self._text.strip()[:MOST_ID_CHARACTERS] or None
            self._text, self.state = "", State.CODE
            return []
        if token == END:
            return [self._closed()]
        self.state = State.OPENED if token == CALL else State.TRAPPED
        return []

    def _closed(self) -> Event:
        code, identity, state = self._text.strip(), self._id, self.state
        self.state, self._text, self._id = State.OUTSIDE, "", None
        if state is State.TRAPPED:
            return Trap()
        return Call(identity, code)


def first_reserved(text: str) -> tuple[int, str] | None:
    """The place of the first delimiter, and which; None when there is none."""
    places = [(text.find(token), token) for token in RESERVED if token in text]
    return min(places) if places else None


def may_become_reserved(text: str) -> int:
    """How many characters at the end of the text may be the beginning of a delimiter."""
    longest = max(map(len, RESERVED)) - 1
    lengths = range(min(longest, len(text)), 0, -1)
    return next((n for n in lengths if any(token.startswith(text[-n:]) for token in RESERVED)), 0)


def neutral(text: str) -> str:
    """The text with a space in each delimiter: what a tool returns can't end its interrupt nor begin another."""
    for token in RESERVED:
        text = text.replace(token, f"[ {token[1:]}")
    return text


def written_interrupt(identity: str, value: str) -> str:
    """An interrupt as the runtime writes it; delimiters in the value become words."""
    return f"{INTR}{neutral(identity)}{HEAD}{neutral(value)}{END}"


def written_call(code: str, identity: str | None = None) -> str:
    """A call as the model says it."""
    return f"{CALL}{identity}{HEAD}{code}{END}" if identity else f"{CALL}{code}{END}"


WRITTEN_TRAP = f"{TRAP}{END}"


@dataclass(frozen=True)
class Code:
    """What a call's code says: a function's name and its arguments, which are literals."""

    name: str
    arguments: tuple[object, ...]
    named: tuple[tuple[str, object], ...]

    @classmethod
    def parse(cls, code: str) -> Code:
        """Reads `name(3, city="Oslo")`. Raises `Malformed` for anything else, also for arguments that compute."""
        try:
            tree = ast.parse(code.strip(), mode="eval").body
            if not isinstance(tree, ast.Call) or not isinstance(tree.func, ast.Name):
                raise Malformed(f"{code!r} calls no function by its name")
            arguments = tuple(ast.literal_eval(value) for value in tree.args)
            named = tuple((keyword.arg or "", ast.literal_eval(keyword.value)) for keyword in tree.keywords)
        except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
            raise Malformed(f"{code!r} is no call with literal arguments") from error
        if not all(name for name, _ in named):
            raise Malformed(f"{code!r} unpacks its arguments")
        return cls(tree.func.id, arguments, named)
