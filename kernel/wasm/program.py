"""A program that has been checked and compiled."""

from __future__ import annotations

from typing import Any

from cadenza.kvfs.errors import Invalid

_MAGIC = b"\0asm"
_COMPONENT = b"\x0d\0\x01\0"
_CORE = b"\x01\0\0\0"


class Program:
    """`digest`: sha256 of what was uploaded, in hex. `exports`: those of `run` and `check` that it has."""

    def __init__(self, digest: str, component: Any) -> None:
        self.digest, self.component = digest, component
        self.exports = {name: index for name in ("run", "check")
                        if (index := component.get_export_index(name)) is not None}

    def export(self, name: str) -> Any:
        """The index of a function `func() -> result<_, string>`. Raises Invalid if there is none of that name."""
        if name not in self.exports:
            raise Invalid(f"the program {self.digest[:12]} exports {sorted(self.exports)}, and no {name!r}", "export")
        return self.exports[name]


def check_header(wasm: bytes) -> None:
    """Raises Invalid unless it begins as a component does."""
    if wasm[:4] != _MAGIC:
        raise Invalid(f"not Wasm: it begins with {wasm[:8]!r}, not {_MAGIC!r}", "image")
    if wasm[4:8] == _CORE:
        raise Invalid("a core Wasm module, where a component is expected: make it one with `python sdk/c/build.py`, "
                      "`wasm-tools component new` or your language's component tool", "image")
    if wasm[4:8] != _COMPONENT:
        raise Invalid(f"Wasm of the unknown version {wasm[4:8]!r}; a component's is {_COMPONENT!r}", "image")
