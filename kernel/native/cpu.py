"""What the CPU says of itself; nothing, where that cannot be read."""

from __future__ import annotations

from pathlib import Path

INFO = Path("/proc/cpuinfo")
BFLOAT16 = ("avx512_bf16", "amx_bf16", "bf16")           # flags, any of which says that it is multiplied


def told(*names: str) -> dict[str, str]:
    """Of the first CPU, what stands behind these names, as far as they are there."""
    try:
        lines = INFO.read_text().splitlines()
    except OSError:
        return {}
    pairs = [line.partition(":") for line in reversed(lines)]
    return {name.strip(): value.strip() for name, _, value in pairs if name.strip() in names}


def has_bfloat16() -> bool:
    """Whether it has instructions that multiply bfloat16."""
    return any(flag in value.split() for value in told("flags", "Features").values() for flag in BFLOAT16)
