"""The model beside which this program runs: its facts, its vocabulary and its chat template. Nothing here blocks."""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from wit_world.imports import model as kernel

from .errors import checked

Message = Mapping[str, object]
"""A chat message: `role` (system, user, assistant or tool), `content`, and whatever else the template reads."""

_facts = checked(kernel.facts)
_tokenize = checked(kernel.tokenize)
_detokenize = checked(kernel.detokenize)
_vocabulary = checked(kernel.vocabulary)
_chat = checked(kernel.chat)


@dataclass(frozen=True)
class Facts:
    """What the model is. `stop_tokens`: its own ends of text. `context_tokens`: the most a context can hold."""

    name: str
    fingerprint: str
    vocabulary_size: int
    context_tokens: int
    page_tokens: int
    stop_tokens: frozenset[int]
    begin_token: int | None


@functools.cache
def facts() -> Facts:
    """The model's facts; the same for the whole life of the program."""
    known = _facts()
    return Facts(
        known.name,
        known.fingerprint,
        known.vocabulary_size,
        known.context_tokens,
        known.page_tokens,
        frozenset(known.stop_tokens),
        known.begin_token,
    )


def tokenize(text: str, special: bool = False) -> list[int]:
    """The tokens of a text. `special`: names of special tokens in it become those tokens; not for untrusted text."""
    return list(_tokenize(text, special))


def detokenize(tokens: Sequence[int], special: bool = False) -> str:
    """The text of tokens; bytes that are not UTF-8 become U+FFFD. `special`: special tokens are written out."""
    return _detokenize(list(tokens), special)


def vocabulary(first: int, count: int) -> list[bytes]:
    """The bytes of the tokens `first` up to `first + count`."""
    return _vocabulary(first, count)


def chat(messages: Sequence[Message], generate: bool = True) -> str:
    """The messages as the model's chat template writes them. `generate`: up to where the assistant speaks."""
    return _chat(json.dumps([dict(message) for message in messages]), generate)
