"""Where the kernel and the Wasm runtime meet: handlers on one side, guests on the other. No pointer is seen here.

Values cross as Python values, by their WIT type:

    bool, integers, floats, string      bool, int, float, str
    list<u8 … f64>                      numpy array when it arrives; any sequence of numbers when it is answered
    list<other>, tuple                  list, tuple
    record                              when it arrives: a NamedTuple made from the WIT type, fields in snake_case;
                                        when it is answered: any object with those attributes
    variant                             a `Case`
    enum                                its case's name as WIT spells it, "stop-token"
    flags                               frozenset of names
    option                              the value or None
    result<T, error>                    answered only: T is returned; a CadenzaError raised becomes the error
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, NamedTuple, TypeVar


class Case(NamedTuple):
    """One case of a variant; `value` is None for a case without payload."""

    name: str
    value: Any = None


class Suspension:
    """What a handler returns in place of an answer when the answer is not there yet."""

    __slots__ = ()

    def subscribe(self, wake: Callable[[], None]) -> None:
        """`wake` is called once, on the event loop, when `answer` may be called. Maybe before this returns."""
        raise NotImplementedError

    def answer(self) -> Any:
        """The answer. Raises the CadenzaError that becomes the guest's error. Called once."""
        raise NotImplementedError

    def abandon(self) -> None:
        """The guest is gone; nobody will ask for the answer. Idempotent."""
        raise NotImplementedError


# handler(process, *arguments) -> answer or Suspension. `process` is what was given to `instantiate`.
Handler = Callable[..., Any]
# interface name ("inference") -> function name ("take-tokens") -> handler
Handlers = Mapping[str, Mapping[str, Handler]]

H = TypeVar("H", bound=Handler)
_quick: Final[set[Handler]] = set()
_blocking: Final[set[Handler]] = set()


def quick(handler: H) -> H:
    """Marks a handler that is asked on the guest's own stack, so that an answer that is there costs no switch. It does
    little and needs little stack; what a guest touches of its own is memory that it keeps."""
    _quick.add(handler)
    return handler


def is_quick(handler: Handler) -> bool:
    return getattr(handler, "__func__", handler) in _quick


def blocking(handler: H) -> H:
    """Marks a handler whose guest nearly always blocks: the switch is made first, where that can be done without
    Python, and the handler asked then."""
    _blocking.add(handler)
    return handler


def is_blocking(handler: Handler) -> bool:
    return getattr(handler, "__func__", handler) in _blocking


class Advance(enum.Enum):
    """How a slice of a guest ended."""

    BLOCKED = "blocked"      # suspended; `wake` will be called
    READY = "ready"          # used up its slice; call `advance` again when it is its turn
    ENDED = "ended"          # `outcome` is set


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a guest ended. `ending` is a case of WIT's `process.ending`: finished, failed (run answered an error),
    exited, trapped, cpu-limit, memory-limit."""

    ending: str
    code: int = 0
    message: str = ""


class ExitGuest(BaseException):
    """Raised by a handler to end the guest that called it, without answering."""

    def __init__(self, outcome: Outcome) -> None:
        super().__init__(outcome.ending)
        self.outcome = outcome
