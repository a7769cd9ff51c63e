"""Stands in for what componentize-py generates."""

from dataclasses import dataclass
from typing import Generic, TypeVar

E = TypeVar("E")


@dataclass(frozen=True)
class Err(Generic[E], Exception):  # type: ignore[misc]
    value: E
