"""Numbers that look like chance to all who do not have the key. What watermarks are made of, and found by."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterator, Sequence

KEY = "cadenza"
KEY_BYTES = 64          # that the hash takes


def chance(key: str, *tokens: int) -> float:
    """Between 0 and 1, both excluded."""
    packed = struct.pack(f"<{len(tokens)}q", *tokens)
    digest = hashlib.blake2b(packed, digest_size=8, key=key.encode()[:KEY_BYTES]).digest()
    return ((int.from_bytes(digest, "little") >> 12) + 0.5) / 2**52


def windows(tokens: Sequence[int], before: int) -> Iterator[tuple[int, ...]]:
    """Each token with the `before` ones in front of it, each such window once: one that comes again is no new
    evidence."""
    yield from dict.fromkeys(tuple(tokens[at - before : at + 1]) for at in range(before, len(tokens)))
