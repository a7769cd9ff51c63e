"""What an image asks for beyond the kernel: hosts and tools. A part of the upload, so its digest covers it.

Of a Python program it is a block of comments in main.py, in the way of PEP 723; of a component a custom section
`cadenza:manifest` that holds the TOML itself.

    # /// cadenza
    # hosts = ["api.example.org", "*.example.org:8443"]
    # tools = ["weather.forecast", "calendar.*"]
    # ///
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from cadenza.kernel.hosts import HostPattern
from cadenza.kernel.limits import MANIFEST_BYTES, MANIFEST_PATTERNS
from cadenza.kvfs.errors import Invalid, LimitExceeded

MAIN = "main.py"
BEGIN, END = "# /// cadenza", "# ///"
SECTION = "cadenza:manifest"
TOOL = re.compile(r"(?P<server>[A-Za-z0-9_-]{1,64})\.(?P<tool>[A-Za-z0-9_./-]{1,128}|\*)")
KEYS = ("hosts", "tools")


@dataclass(frozen=True, slots=True)
class Manifest:
    """Patterns, as they were written. What is allowed by an operator is one of these too."""

    hosts: tuple[str, ...] = ()
    tools: tuple[str, ...] = ()

    @property
    def patterns(self) -> list[HostPattern]:
        return [pattern(text) for text in self.hosts]

    def names_host(self, scheme: str, host: str, port: int) -> bool:
        return any(pattern.matches(scheme, host, port) for pattern in self.patterns)

    def names_tool(self, name: str) -> bool:
        server, _, _ = name.partition(".")
        return name in self.tools or f"{server}.*" in self.tools


NOTHING = Manifest()


@lru_cache(4096)
def pattern(text: str) -> HostPattern:
    return HostPattern.parse(text)


def of_python(sources: Sequence[tuple[str, str]]) -> Manifest:
    """That of a program's source files, (path, text). Raises Invalid, with the line, and LimitExceeded."""
    lines = dict(sources).get(MAIN, "").splitlines()
    begins = [number for number, line in enumerate(lines) if line.rstrip() == BEGIN]
    if not begins:
        return NOTHING
    if len(begins) > 1:
        raise Invalid(f"{MAIN}:{begins[1] + 1}: a second `{BEGIN}`; a program has one manifest", "manifest")
    first = begins[0] + 1
    for last in range(first, len(lines)):
        line = lines[last].rstrip()
        if line == END:
            return parse("\n".join(text[2:] for text in lines[first:last]), f"{MAIN}:{first}")
        if line != "#" and not line.startswith("# "):
            raise Invalid(f"{MAIN}:{last + 1}: the manifest is not ended: each line begins with '# ', and the last "
                          f"is `{END}`", "manifest")
    raise Invalid(f"{MAIN}:{first}: the manifest is not ended by `{END}`", "manifest")


def of_component(wasm: bytes) -> Manifest:
    """That of a component: of its custom section at the top level. Raises Invalid, LimitExceeded."""
    found = list(_sections(wasm))
    if len(found) > 1:
        raise Invalid(f"the component has {len(found)} sections {SECTION!r}; a program has one manifest", "manifest")
    try:
        return parse(found[0].decode(), SECTION) if found else NOTHING
    except UnicodeDecodeError as error:
        raise Invalid(f"the section {SECTION!r} is not UTF-8 text: {error.reason}", "manifest") from None


def parse(text: str, where: str) -> Manifest:
    """Of TOML. `where`: what an error names. Raises Invalid, LimitExceeded."""
    if len(text.encode()) > MANIFEST_BYTES:
        raise LimitExceeded(f"{where}: a manifest has at most {MANIFEST_BYTES} bytes", "manifest_bytes")
    try:
        table = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise Invalid(f"{where}: the manifest is not TOML: {error}", "manifest") from None
    foreign = sorted(set(table) - set(KEYS))
    if foreign:
        raise Invalid(f"{where}: a manifest has no {foreign[0]!r}; it has {' and '.join(KEYS)}", "manifest")
    hosts, tools = (_patterns(table.get(key, []), key, where) for key in KEYS)
    for text in hosts:
        try:
            pattern(text)
        except Invalid as error:
            raise Invalid(f"{where}: {error.message}", "manifest") from None
    for text in tools:
        if not TOOL.fullmatch(text):
            raise Invalid(f"{where}: {text!r} is no tool: write SERVER.TOOL or SERVER.*", "manifest")
    return Manifest(hosts, tools)


def _patterns(given: Any, key: str, where: str) -> tuple[str, ...]:
    if not isinstance(given, list) or not all(isinstance(text, str) for text in given):
        raise Invalid(f"{where}: {key} should be a list of texts, as [\"…\", \"…\"]", "manifest")
    if len(given) > MANIFEST_PATTERNS:
        raise LimitExceeded(f"{where}: {len(given)} {key}; a manifest names at most {MANIFEST_PATTERNS}",
                            "manifest_patterns")
    return tuple(given)


def _sections(wasm: bytes) -> list[bytes]:
    """The contents of our custom sections. What is malformed ends the search: the compiler will say so."""
    found, at = [], 8
    name = bytes([len(SECTION)]) + SECTION.encode()
    while at < len(wasm):
        size, content = _leb128(wasm, at + 1)
        if wasm[at] == 0 and wasm[content : content + len(name)] == name:
            found.append(wasm[content + len(name) : content + size])
        at = content + size
    return found


def _leb128(data: bytes, at: int) -> tuple[int, int]:
    """The number that begins at `at`, and where it ends."""
    value = shift = 0
    for end in range(at, min(at + 5, len(data))):
        value |= (data[end] & 0x7F) << shift
        shift += 7
        if not data[end] & 0x80:
            return value, end + 1
    return len(data), len(data)
