"""A model's tokens, as llguidance wants them.

It gets one token more than the model has: its end. Where that is allowed a grammar may end, and which tokens of the
model stand for that is our business. Special tokens are never part of a text: a grammar names them, or has none.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Final

from llguidance import LLMatcher, LLParserLimits, LLTokenizer, TokenizerWrapper

from cadenza.kernel.limits import GRAMMAR_LEXER_STATES, GRAMMAR_ROW_ITEMS, GRAMMAR_STEP_FUEL, GRAMMAR_STEP_ITEMS

Encode = Callable[[str], list[int]]

SPELLED_TEXTS: Final = 4096           # remembered, of at most so many bytes
SPELLED_BYTES: Final = 128

LIMITS: Final = LLParserLimits(
    step_lexer_fuel=GRAMMAR_STEP_FUEL, step_max_items=GRAMMAR_STEP_ITEMS, max_items_in_row=GRAMMAR_ROW_ITEMS,
    max_lexer_states=GRAMMAR_LEXER_STATES, verbose_errors=False)


class Vocabulary:
    """`tokens`: the bytes of each, empty for a number that names none. `stops`: the model's own ends of text. `encode`:
    how the model would spell a text that a grammar forces; without it, the longest token first."""

    def __init__(self, tokens: Sequence[bytes], special: frozenset[int] = frozenset(), stops: Sequence[int] = (),
                 encode: Encode | None = None) -> None:
        self.tokens, self.special, self.stops = tokens, special, tuple(stops)
        self._encode = encode
        self._numbers = {spelled: number for number, spelled in enumerate(tokens) if number not in special}
        self._longest = max(map(len, self._numbers), default=0)
        self._spell_short = lru_cache(SPELLED_TEXTS)(self._spell)      # the same are forced again and again

    def __len__(self) -> int:
        return len(self.tokens)

    def tokenizer(self) -> LLTokenizer:
        """Takes a second for a large vocabulary."""
        return LLTokenizer(TokenizerWrapper(_Spoken(self)), n_vocab=len(self) + 1, eos_token=len(self))

    def spell(self, text: bytes) -> list[int]:
        """Tokens whose bytes are `text`, as far as there are any. Not to be changed."""
        return self._spell_short(text) if len(text) <= SPELLED_BYTES else self._spell(text)

    def _spell(self, text: bytes) -> list[int]:
        if self._encode is not None:
            spelled = self._encode(text.decode(errors="replace"))
            if b"".join(self.tokens[token] for token in spelled) == text:
                return spelled
        return self._longest_first(text)

    def _longest_first(self, text: bytes) -> list[int]:
        spelled: list[int] = []
        while text:
            known = [size for size in range(min(self._longest, len(text)), 0, -1) if text[:size] in self._numbers]
            if not known:
                break
            spelled.append(self._numbers[text[: known[0]]])
            text = text[known[0] :]
        return spelled


class _Spoken:
    """What llguidance's wrapper asks of a tokenizer."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        end = len(vocabulary)
        self.eos_token_id, self.bos_token_id = end, None
        self.tokens = [*vocabulary.tokens, b"<|end of the grammar|>"]
        self.special_token_ids = [*vocabulary.special, end]
        self._spell = vocabulary.spell

    def __call__(self, text: bytes) -> list[int]:
        return self._spell(text)


def compiled(tokenizer: LLTokenizer, grammar: str) -> LLMatcher:
    """At its beginning; `is_error` if it, or its first mask, cannot be made. Other threads go on meanwhile."""
    matcher = LLMatcher(tokenizer, grammar, limits=LIMITS, log_level=0)
    if matcher.is_error():
        return matcher
    first = matcher.deep_copy()
    first.compute_bitmask()
    return first if first.is_error() else matcher
