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
    weights: str = ""                        # the type that they were computed with, where K and V have another

    def __str__(self) -> str:
        weights = f" with {self.weights} weights" if self.weights else ""
        return f"model {self.fingerprint[:12]}{weights}, {self.page_tokens} tokens and {self.page_bytes} bytes a page"

    def to_json(self) -> dict[str, Any]:
        """Plain weights are not named."""
        return {name: value for name, value in asdict(self).items() if value != ""}


class StoredPage(NamedTuple):
    """Where an image lies, and the CRC-32 of it."""

    slot: int
    checksum: int


@dataclass(frozen=True, slots=True)
class PartRecord:
    """One part of a file: tokens [first, first + length) of an extent over `pages`.

    Parts of one extent name the same three objects `pages`, `tokens` and `positions`: it is written once for them all.
    """

    pages: tuple[StoredPage, ...]
    skip: int
    first: int
    length: int
    shift: int
    hidden: bool
    tokens: Int32                            # of the whole extent
    positions: Int32

    @property
    def extent(self) -> tuple[int, int, int]:
        """Equal for parts of one extent, while they live."""
        return id(self.pages), id(self.tokens), id(self.positions)


@dataclass(frozen=True, slots=True)
class Naming:
    """What may change of a durable file without its contents. A file without paths is no more."""

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
    adapter: str = ""                        # under which it was computed: a digest, or none

    @property
    def extents(self) -> list[PartRecord]:
        """One part of each extent."""
        return list({part.extent: part for part in self.parts}.values())

    @property
    def pages(self) -> list[StoredPage]:
        """Of all extents, in order."""
        return [page for part in self.extents for page in part.pages]

    @property
    def slots(self) -> set[int]:
        return {page.slot for page in self.pages}

    @property
    def token_count(self) -> int:
        return sum(part.length for part in self.parts)

    def named(self, naming: Naming) -> FileRecord:
        return replace(self, naming=naming)


_PART = ("skip", "first", "length", "shift", "hidden")


def encode(record: FileRecord) -> bytes:
    """Length of the JSON (u32), the JSON, then of each extent: slots u64, checksums u32, tokens i32, positions i32.

    Positions that count up by one are not written: the JSON has the first of them as `from`.
    """
    described, pieces = [], []
    for part in record.extents:
        counted = _counts_up(part.positions)
        start = {"from": int(part.positions[0])} if counted else {}
        described.append({"pages": len(part.pages), "tokens": len(part.tokens), **start})
        pieces += [np.array([page.slot for page in part.pages], "<u8").tobytes(),
                   np.array([page.checksum for page in part.pages], "<u4").tobytes(),
                   part.tokens.astype("<i4").tobytes()]
        if not counted:
            pieces.append(part.positions.astype("<i4").tobytes())
    number = {part.extent: at for at, part in enumerate(record.extents)}
    text = _json({
        "number": record.number, "layout": record.layout.to_json(), **record.naming.to_json(), "exact": record.exact,
        "straight": record.straight, "created_ns": record.created_ns, "modified_ns": record.modified_ns,
        "adapter": record.adapter, "extents": described,
        "parts": [{"extent": number[part.extent], **{name: getattr(part, name) for name in _PART}}
                  for part in record.parts],
    })  # fmt: skip
    return b"".join([len(text).to_bytes(4, "little"), text, *pieces])


def decode(payload: bytes | memoryview) -> FileRecord:
    """Raises ValueError, KeyError, IndexError or TypeError for what `encode` did not write."""
    end = 4 + int.from_bytes(payload[:4], "little")
    known = json.loads(bytes(payload[4:end]))
    extents: list[tuple[tuple[StoredPage, ...], Int32, Int32]] = []
    for extent in known["extents"]:
        columns = []
        listed = [] if "from" in extent else [("<i4", extent["tokens"])]
        for kind, count in (("<u8", extent["pages"]), ("<u4", extent["pages"]), ("<i4", extent["tokens"]), *listed):
            columns.append(np.frombuffer(payload, kind, count, end))
            end += columns[-1].nbytes
        slots, sums, *of_tokens = columns
        if not listed:
            of_tokens.append(np.arange(extent["from"], extent["from"] + extent["tokens"]))
        tokens, positions = (column.astype(np.int32) for column in of_tokens)
        extents.append((tuple(map(StoredPage, slots.tolist(), sums.tolist())), tokens, positions))
    if end != len(payload):
        raise ValueError(f"{len(payload) - end} bytes too many")
    parts = []
    for part in known["parts"]:
        pages, tokens, positions = extents[part["extent"]]
        parts.append(PartRecord(pages, tokens=tokens, positions=positions, **{name: part[name] for name in _PART}))
    return FileRecord(known["number"], Layout(**known["layout"]), Naming.from_json(known), known["exact"],
                      known["straight"], known["created_ns"], known["modified_ns"], tuple(parts),
                      known.get("adapter", ""))


def encode_names(namings: Mapping[int, Naming]) -> bytes:
    """JSON: of each file its number and its naming."""
    return _json([{"number": number, **naming.to_json()} for number, naming in namings.items()])


def decode_names(payload: bytes | memoryview) -> dict[int, Naming]:
    """Raises ValueError, KeyError or TypeError for what `encode_names` did not write."""
    return {each["number"]: Naming.from_json(each) for each in json.loads(bytes(payload))}


def _counts_up(positions: Int32) -> bool:
    return len(positions) > 0 and bool((np.diff(positions) == 1).all())


def _json(described: object) -> bytes:
    return json.dumps(described, separators=(",", ":")).encode()
