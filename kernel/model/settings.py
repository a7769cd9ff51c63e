"""A JSON object whose fields are read by kind; every fault names the file and the field. No torch."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cadenza.kvfs.errors import Invalid, NotFound


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in `path`. Raises NotFound when there is no such file, Invalid when it is not a JSON object."""
    try:
        read = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise NotFound(f"{path.parent} has no {path.name}; a model is a directory as Hugging Face writes it") from None
    except (ValueError, RecursionError) as fault:
        raise Invalid(f"{path} is not JSON: {fault}", field=path.name) from None
    if not isinstance(read, dict):
        raise Invalid(f"{path} holds a JSON {type(read).__name__}, not an object", field=path.name)
    return read


def read_json_or_empty(path: Path) -> dict[str, Any]:
    """The same, and an empty object when there is no such file."""
    return read_json(path) if path.exists() else {}


@dataclass(frozen=True, slots=True)
class Settings:
    """`raw`, read by kind. A field that is absent or null takes `otherwise`; without one it is an Invalid."""

    raw: Mapping[str, Any]
    name: str

    def whole(self, field: str, otherwise: int | None = None) -> int:
        """A whole number from 1."""
        value = self._get(field, otherwise)
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise self._fault(field, value, "a whole number from 1")
        return value

    def positive(self, field: str, otherwise: float | None = None) -> float:
        """A finite number above 0."""
        value = self._get(field, otherwise)
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
            raise self._fault(field, value, "a number above 0")
        return float(value)

    def flag(self, field: str, otherwise: bool) -> bool:
        value = self._get(field, otherwise)
        if not isinstance(value, bool):
            raise self._fault(field, value, "true or false")
        return value

    def text(self, field: str, otherwise: str | None = None) -> str:
        value = self._get(field, otherwise)
        if not isinstance(value, str):
            raise self._fault(field, value, "a string")
        return value

    def _get(self, field: str, otherwise: Any) -> Any:
        value = self.raw.get(field)
        value = otherwise if value is None else value
        if value is None:
            raise Invalid(f"{self.name} lacks {field}", field=field)
        return value

    def _fault(self, field: str, value: object, wanted: str) -> Invalid:
        return Invalid(f"{self.name}: {field} is {value!r}; it must be {wanted}", field=field)
