"""What the one who spawned this program gave it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any


class Arguments(Mapping[str, Any]):
    """The JSON object given at spawn: `args.question`, `args["question"]` or `args.get("question", "…")`."""

    def __init__(self, values: Mapping[str, Any]) -> None:
        self._values = dict(values)

    def __getattr__(self, name: str) -> Any:
        values = self.__dict__.get("_values", {})
        if name in values:
            return values[name]
        given = ", ".join(values) or "none"
        raise AttributeError(f"this program was started without the argument `{name}`; given: {given}")

    def __getitem__(self, name: str) -> Any:
        return self._values[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __repr__(self) -> str:
        return f"Arguments({self._values!r})"
