"""What the journal says of files, and how that is written: docs/storage.md draws every byte."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Int32 = NDArray[np.int32]


@dataclass(frozen=True, slots=True)
class Layout:
    """What a page image means. Images of one layout cannot be read as another's."""

    fingerprint: str                         # of the model: digest of its weights and configuration
    page_bytes: int
    page_tokens: int

    def __str__(self) -> str:
        return f"model {self.fingerprint[:12]}, {self.page_tokens} tokens and {self.page_bytes} bytes a page"


class StoredPage(NamedTuple):
    """Where an image lies, and the CRC-32 of it."""

    slot: int
    checksum: int


@dataclass(frozen=True, slots=True)
class PartRecord:
    """One part of a file: tokens [first, first + length) of an extent over `pages`."""

    pages: tuple[StoredPage, ...]
    skip: int
    first: int
    length: int
    shift: int
    hidden: bool
    tokens: Int32                            # of the whole extent
    positions: Int32


@dataclass(frozen=True, slots=True)
class Naming:
    """What may change of a durable file without its contents."""

    owner: str
    paths: tuple[str, ...]
    mine: frozenset[str] = frozenset({"read", "append"})
    others: frozenset[str] = frozenset()
    grants: Mapping[str, frozenset[str]] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        return {"owner": self.owner, "paths": list(self.paths), "mine": sorted(self.mine),
                "others": sorted(self.others), "grants": {u: sorted(r) for u, r in sorted(self.grants.items())}}

    @classmethod
    def from_json(cls, known: Mapping[str, Any]) -> Naming:
        grants = {user: frozenset(rights) for user, rights in known["grants"].items()}
        return cls(known["owner"], tuple(known["paths"]), frozenset(known["mine"]), frozenset(known["others"]), grants)


@dataclass(frozen=True, slots=True)
class FileRecord:
    """A durable file. `straight`: its one part, if any, is a page table that starts at slot 0 and may grow."""

    number: int                              # its identity: never used again
    layout: Layout
    naming: Naming
    exact: bool
    straight: bool
    created_ns: int
    modified_ns: int
    parts: tuple[PartRecord, ...]

    @property
    def slots(self) -> set[int]:
        return {page.slot for part in self.parts for page in part.pages}

    @property
    def token_count(self) -> int:
        return sum(part.length for part in self.parts)

    def named(self, naming: Naming) -> FileRecord:
        return replace(self, naming=naming)


_PART = ("skip", "first", "length", "shift", "hidden")


def encode(record: FileRecord) -> bytes:
    """Length of the JSON (u32), the JSON, then of each part: slots u64, checksums u32, tokens i32, positions i32."""
    described = {
        "number": record.number, "layout": asdict(record.layout), **record.naming.to_json(), "exact": record.exact,
        "straight": record.straight, "created_ns": record.created_ns, "modified_ns": record.modified_ns,
        "parts": [{**{name: getattr(part, name) for name in _PART}, "pages": len(part.pages),
                   "tokens": len(part.tokens)} for part in record.parts],
    }
    text = json.dumps(described, separators=(",", ":")).encode()
    pieces = [len(text).to_bytes(4, "little"), text]
    for part in record.parts:
        pieces += [np.array([p.slot for p in part.pages], "<u8").tobytes(),
                   np.array([p.checksum for p in part.pages], "<u4").tobytes(),
                   part.tokens.astype("<i4").tobytes(), part.positions.astype("<i4").tobytes()]
    return b"".join(pieces)


def decode(payload: bytes) -> FileRecord:
    """Raises ValueError or KeyError for what `encode` did not write."""
    end = 4 + int.from_bytes(payload[:4], "little")
    known = json.loads(payload[4:end])
    parts = []
    for part in known["parts"]:
        columns = []
        for kind, count in (("<u8", part["pages"]), ("<u4", part["pages"]), ("<i4", part["tokens"]),
                            ("<i4", part["tokens"])):
            columns.append(np.frombuffer(payload, kind, count, end))
            end += columns[-1].nbytes
        slots, sums, tokens, positions = columns
        pages = tuple(map(StoredPage, slots.tolist(), sums.tolist()))
        parts.append(PartRecord(pages, tokens=tokens.astype(np.int32), positions=positions.astype(np.int32),
                                **{name: part[name] for name in _PART}))
    if end != len(payload):
        raise ValueError(f"{len(payload) - end} bytes too many")
    return FileRecord(known["number"], Layout(**known["layout"]), Naming.from_json(known), known["exact"],
                      known["straight"], known["created_ns"], known["modified_ns"], tuple(parts))
