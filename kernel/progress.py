"""How far a run goes, and how far it has come."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple


class Stop(NamedTuple):
    """When a run ends. `max_tokens` counts sampled tokens; `room_tokens` is what the context still holds."""

    max_tokens: int
    room_tokens: int
    tokens: frozenset[int] = frozenset()
    sequences: tuple[tuple[int, ...], ...] = ()


@dataclass(frozen=True, slots=True)
class Range:
    """WIT's `kv.range`."""

    first: int
    count: int


class Progress(NamedTuple):
    """Tokens not taken before, and how the run stands: a case of WIT's `inference.finish`. Of its input so many tokens
    were computed by now, and so many reused. `interjected`: which of `tokens` the program put in, a range for each."""

    tokens: list[int]
    finish: str
    computed_tokens: int
    reused_tokens: int
    interjected: Iterable[Range] = ()
