"""What a model knows of text: facts, tokens and the form of a chat. Bounded, so that no text holds up a neighbour."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import TypeAlias, TypeVar

from cadenza.kernel.grammar.vocabulary import Vocabulary
from cadenza.kernel.limits import INLINE_TEXT_BYTES, TEXT_BYTES, VOCABULARY_COUNT
from cadenza.kernel.model.chat import ChatTemplate, no_template, parse_messages
from cadenza.kernel.model.config import ModelConfig
from cadenza.kernel.model.facts import ModelFacts
from cadenza.kernel.model.tokenizer import Tokenizer
from cadenza.kvfs.errors import Invalid, LimitExceeded, Unsupported

T = TypeVar("T")
Soon: TypeAlias = T | Awaitable[T]       # at once, or from a worker thread when it is long


class Language:
    """`tokenizer` and `template` may be missing: a model of random weights has neither."""

    def __init__(self, facts: ModelFacts, tokenizer: Tokenizer | None, template: ChatTemplate | None,
                 directory: Path = Path()) -> None:
        self.facts = facts
        self._tokenizer = tokenizer
        self._template = template
        self._directory = directory

    @classmethod
    def from_directory(cls, directory: Path, name: str = "") -> Language:
        """Reads the tokenizer, the template and, for the fingerprint, every weight; blocks."""
        config = ModelConfig.from_directory(directory)
        tokenizer = Tokenizer.from_directory(directory, config)
        facts = ModelFacts.of(name or directory.resolve().name, directory, config, tokenizer)
        return cls(facts, tokenizer, ChatTemplate.from_directory(directory), directory)

    def tokenize(self, text: str, special: bool) -> Soon[list[int]]:
        check_text(text)
        return _soon(len(text), lambda: self._need_tokenizer().encode(text, special))

    def detokenize(self, tokens: Sequence[int], special: bool) -> Soon[str]:
        return _soon(len(tokens), lambda: self._need_tokenizer().decode(tokens, special))

    def vocabulary(self, first: int, count: int) -> list[bytes]:
        """The bytes of tokens first … first + count − 1, as far as there are any."""
        if count > VOCABULARY_COUNT:
            raise LimitExceeded(f"{count} tokens asked for; at most {VOCABULARY_COUNT} at once", "vocabulary_count")
        tokenizer = self._need_tokenizer()
        return [tokenizer.token_bytes(t) for t in range(first, min(first + count, self.facts.vocabulary_size))]

    def chat(self, messages: str, generate: bool) -> Soon[str]:
        """`messages` is a JSON array. Raises Unsupported when the model has no template, Invalid for bad messages."""
        check_text(messages)
        template = self._template
        if template is None:
            raise no_template(self._directory)
        return _soon(len(messages), lambda: template.render(parse_messages(messages), generate))

    def spelled(self) -> Vocabulary:
        """Its tokens, for grammars; takes a while for a large vocabulary. Raises Unsupported."""
        tokenizer = self._need_tokenizer()
        tokens = [tokenizer.token_bytes(token) for token in range(tokenizer.vocabulary_size)]
        return Vocabulary(tokens, tokenizer.special, self.facts.stop_tokens, lambda text: tokenizer.encode(text, False))

    def _need_tokenizer(self) -> Tokenizer:
        if self._tokenizer is None:
            raise Unsupported(f"model {self.facts.name} has no tokenizer: give it tokens")
        return self._tokenizer


def check_text(text: str) -> None:
    if len(text) > TEXT_BYTES or len(text.encode(errors="replace")) > TEXT_BYTES:
        raise Invalid(f"the text has more than {TEXT_BYTES} bytes, the most a call takes; cut it", "text")


def _soon(size: int, work: Callable[[], T]) -> Soon[T]:
    return work() if size <= INLINE_TEXT_BYTES else asyncio.to_thread(work)
