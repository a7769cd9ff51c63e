"""Text to tokens and back, over `tokenizer.json`.

Two readings of one vocabulary: *whole*, as the model's authors wrote it, and *plain*, in which no added token
(`<|im_end|>`, `<tool_call>`, …) is ever recognised in text. Text that a user wrote goes through the plain one, so it
cannot end a turn or open another. Added tokens that are only white space are ordinary vocabulary in both.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import tokenizers

from cadenza.kernel.model.config import ModelConfig
from cadenza.kernel.model.settings import read_json, read_json_or_empty
from cadenza.kernel.model.token_bytes import spelling
from cadenza.kvfs.errors import Invalid


class _Faults:
    """Makes an Invalid of what `tokenizers` raises: Exception itself, of no class of its own."""

    def __init__(self, what: str) -> None:
        self._what = what

    def __enter__(self) -> None: ...

    def __exit__(self, kind: type[BaseException] | None, fault: BaseException | None, _: TracebackType | None) -> None:
        if kind is Exception:
            raise Invalid(f"{self._what}: {fault}") from None


class Tokenizer:
    """Safe to use from several threads. Ids are 0 … `vocabulary_size` − 1, the model's; some may name no token."""

    def __init__(
        self,
        vocabulary: Mapping[str, Any],
        vocabulary_size: int,
        stop_tokens: Iterable[int] = (),
        begin_token: int | None = None,
        name: str = "tokenizer.json",
    ) -> None:
        """`vocabulary`: what `tokenizer.json` holds. Raises Invalid when it is malformed or larger than the model's.

        Added tokens that the model has no embedding for (images, in the text model of Gemma 3) are left out.
        """
        vocabulary = _within(vocabulary, vocabulary_size)
        with _Faults(name):
            self._whole = _load(vocabulary)
            self._plain = _load(_without_added(vocabulary))
        self._plain.encode_special_tokens = True
        self._spelling = spelling(vocabulary)
        self._added = {number: token.content for number, token in self._whole.get_added_tokens_decoder().items()}
        largest = max(self._whole.get_vocab().values(), default=0)
        if largest >= vocabulary_size:
            raise Invalid(f"{name} has a token {largest}, and the model's vocabulary is {vocabulary_size} tokens")
        self.vocabulary_size = vocabulary_size
        self.stop_tokens = sorted(set(stop_tokens))
        self.begin_token = begin_token

    @classmethod
    def from_directory(cls, directory: Path, config: ModelConfig) -> Tokenizer:
        """Reads `tokenizer.json`, and stop and begin tokens from the files beside it. Raises NotFound, Invalid."""
        vocabulary = read_json(directory / "tokenizer.json")
        settings = read_json_or_empty(directory / "tokenizer_config.json")
        ids = {str(token["content"]): int(token["id"]) for token in vocabulary.get("added_tokens") or []}
        return cls(
            vocabulary,
            config.vocabulary_size,
            [token for token in _stop_tokens(directory, settings, ids) if 0 <= token < config.vocabulary_size],
            _begin_token(directory, settings, ids),
            str(directory / "tokenizer.json"),
        )

    @property
    def special(self) -> frozenset[int]:
        """Those that no plain text becomes."""
        return frozenset(number for number, text in self._added.items() if text.strip())

    def encode(self, text: str, special: bool) -> list[int]:
        """Tokens of `text`, none added before or after. `special`: whether names of added tokens become them."""
        with _Faults("text"):
            return list((self._whole if special else self._plain).encode(text, add_special_tokens=False).ids)

    def decode(self, tokens: Sequence[int], special: bool) -> str:
        """Text of `tokens`; bytes that are no UTF-8 become U+FFFD. `special`: whether special tokens are written out.

        Raises Invalid for a token outside the vocabulary.
        """
        self._check(tokens)
        return self._whole.decode(list(tokens), skip_special_tokens=not special)

    def token_bytes(self, token: int) -> bytes:
        """What one token stands for, alone; empty for an id that names none. Raises Invalid outside the vocabulary."""
        self._check((token,))
        if token in self._added:
            return self._added[token].encode()
        text = self._whole.id_to_token(token)
        return b"" if text is None else self._spelling(text)

    def _check(self, tokens: Sequence[int]) -> None:
        for token in tokens:
            if not 0 <= token < self.vocabulary_size:
                fault = f"token {token} is outside the vocabulary of {self.vocabulary_size} tokens"
                raise Invalid(fault, field="tokens")


def _load(vocabulary: Mapping[str, Any]) -> tokenizers.Tokenizer:
    loaded = tokenizers.Tokenizer.from_str(json.dumps(vocabulary))
    loaded.no_padding()
    loaded.no_truncation()
    return loaded


def _within(vocabulary: Mapping[str, Any], size: int) -> Mapping[str, Any]:
    added = vocabulary.get("added_tokens")
    if not isinstance(added, list) or not all(isinstance(t, Mapping) and isinstance(t.get("id"), int) for t in added):
        return vocabulary                                      # malformed, or none: the library says so
    return {**vocabulary, "added_tokens": [token for token in added if token["id"] < size]}


def _without_added(vocabulary: Mapping[str, Any]) -> dict[str, Any]:
    """The same, with every added token that is more than white space marked as special."""
    added = vocabulary.get("added_tokens") or []
    return {**vocabulary, "added_tokens": [{**t, "special": t["special"] or bool(t["content"].strip())} for t in added]}


def _stop_tokens(directory: Path, settings: Mapping[str, Any], ids: Mapping[str, int]) -> list[int]:
    """Every end that the model's files declare: a number or a list of them in two files, and a text in a third."""
    declared = [
        read_json_or_empty(directory / name).get("eos_token_id") for name in ("generation_config.json", "config.json")
    ]
    declared.append(ids.get(_text(settings.get("eos_token"))))
    lists = [value if isinstance(value, list) else [value] for value in declared]
    return [token for tokens in lists for token in tokens if isinstance(token, int) and not isinstance(token, bool)]


def _begin_token(directory: Path, settings: Mapping[str, Any], ids: Mapping[str, int]) -> int | None:
    """`bos_token` of the tokenizer's own settings, unless they say not to add it; without such, of `config.json`."""
    if settings:
        return ids.get(_text(settings.get("bos_token"))) if settings.get("add_bos_token", True) else None
    declared = read_json(directory / "config.json").get("bos_token_id")
    return declared if isinstance(declared, int) and not isinstance(declared, bool) else None


def _text(token: Any) -> str:
    """A token is written as its text, or as an object with `content`."""
    return str(token.get("content", "") if isinstance(token, Mapping) else token)
