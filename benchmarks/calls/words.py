"""The tokens of a model that does not exist: byte-level BPE, trained on the leaderboard's own texts in the run.

So calls have as many tokens as a large model's tokenizer, which has seen much code, would make of them.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import tokenizers
from tokenizers import decoders, models, pre_tokenizers, trainers

from benchmarks.calls.tasks import declared, lines, solved_questions
from cadenza.inferlets.async_calls.cml import RESERVED
from cadenza.kernel.language import Language
from cadenza.kernel.model.chat import ChatTemplate
from cadenza.kernel.model.facts import ModelFacts
from cadenza.kernel.model.tokenizer import Tokenizer

VOCABULARY, CONTEXT_TOKENS = 8192, 131_072
BEGIN, END_OF_TURN, CALL = "<|begin|>", "<|end|>", "<|call|>"
ROLES = ("<|system|>", "<|user|>", "<|assistant|>", "<|tool|>")
SPECIAL = (BEGIN, END_OF_TURN, CALL, *ROLES, *RESERVED)
TEMPLATE = ("{{- '<|begin|>' -}}{%- for message in messages -%}"
            "{{- '<|' ~ message['role'] ~ '|>' ~ message['content'] ~ '<|end|>' -}}{%- endfor -%}"
            "{%- if add_generation_prompt -%}{{- '<|assistant|>' -}}{%- endif -%}")


class Words:
    """Tokenizer and what else a model knows of text."""

    def __init__(self, directory: Path) -> None:
        """Trains it; the same for the same texts."""
        trained = tokenizers.Tokenizer(models.BPE())
        trained.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        trained.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(vocab_size=VOCABULARY, special_tokens=list(SPECIAL), show_progress=False,
                                      initial_alphabet=pre_tokenizers.ByteLevel.alphabet())
        trained.train_from_iterator(_texts(directory), trainer)
        known: dict[str, int] = trained.get_vocab()
        self.special = {name: known[name] for name in SPECIAL}
        end, begin = self.special[END_OF_TURN], self.special[BEGIN]
        self._tokenizer = Tokenizer(json.loads(trained.to_str()), VOCABULARY, [end], begin)
        facts = ModelFacts("bfcl", "0" * 64, VOCABULARY, CONTEXT_TOKENS, (end,), begin)
        self.language = Language(facts, self._tokenizer, ChatTemplate(TEMPLATE))

    def tokens(self, text: str) -> list[int]:
        """Names of special tokens in it become those."""
        return self._tokenizer.encode(text, True)

    def text(self, tokens: list[int]) -> str:
        return self._tokenizer.decode(tokens, True)


def _texts(directory: Path) -> Iterator[str]:
    for solved in solved_questions(directory):
        yield solved.question
        yield from solved.functions.values()
        yield from (code for _, code in solved.codes)
    for path in sorted(directory.glob("doc_*.json")):
        for function in lines(path):
            yield declared(function)
            yield function["description"]
