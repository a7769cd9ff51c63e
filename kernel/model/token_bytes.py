"""The bytes that a token stands for, by the two ways in which vocabularies spell bytes as text.

    byte-level (GPT-2, Llama 3, Qwen)     each character is one byte, by the table of GPT-2's `bytes_to_unicode`
    byte-fallback (sentencepiece)         "▁" is a space; "<0xAB>" is that byte; the rest is itself
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from cadenza.kvfs.errors import Unsupported

BYTE = re.compile(r"<0x([0-9A-Fa-f]{2})>")
SPACE_MARK = "▁"

# a vocabulary's spelling of a token → its bytes
Spelling = Callable[[str], bytes]


def byte_alphabet() -> dict[str, int]:
    """Character → byte: printable Latin-1 characters are themselves, the others follow from U+0100 in order."""
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(256 + i): byte for i, byte in enumerate(others)}


ALPHABET = byte_alphabet()


def byte_level(text: str) -> bytes:
    """A character outside the alphabet (of a token that was added later) is itself."""
    return b"".join(bytes((ALPHABET[c],)) if c in ALPHABET else c.encode() for c in text)


def byte_fallback(text: str) -> bytes:
    byte = BYTE.fullmatch(text)
    return bytes((int(byte[1], 16),)) if byte else text.replace(SPACE_MARK, " ").encode()


def spelling(tokenizer: Mapping[str, Any]) -> Spelling:
    """Of what `tokenizer.json` holds. Raises Unsupported for a decoder that is neither of the two, by its name."""
    names = list(_decoder_names(tokenizer.get("decoder") or {}))
    if "ByteLevel" in names:
        return byte_level
    if "ByteFallback" in names or "Metaspace" in names:
        return byte_fallback
    found = " + ".join(names) or "nothing"
    raise Unsupported(f"tokenizer.json decodes by {found}; ByteLevel and ByteFallback vocabularies are supported")


def _decoder_names(decoder: Mapping[str, Any]) -> Iterator[str]:
    for part in decoder.get("decoders") or [decoder]:
        if "type" in part:
            yield str(part["type"])
