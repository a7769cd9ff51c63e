"""The tokenizer: byte-level BPE trained on the generated text, so that any UTF-8 text survives it.

A lower-case word takes the space before it along; a capitalised word and a digit never do. So a name, a city or a
number is the same tokens at the start of a sentence, in the middle of one and inside `weather(...)`: what is
copied from one place to another stays the same. A capitalised word is cut into syllables before anything else, so
that a name never met is made of tokens that are met everywhere: `Talo` is `Ta` `lo`, `Berlin` is `Ber` `lin`.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

from train.dialogue import BEGIN, END, PAD, SPECIAL_TOKENS
from train.tasks import LONG_MIXTURE, MIXTURE, draw_mixed
from train.world import Pieces, Split

VOCABULARY_SIZE = 2048
TRAINING_DIALOGUES = 20_000
MODEL_MAX_LENGTH = 2048
PIECES = r"\p{N}|\p{Lu}[\p{L}\p{M}]*| ?[\p{Ll}\p{Lo}\p{Lt}\p{Lm}\p{M}]+|[^\s\p{L}\p{N}]+|\s"
"""Digit · capitalised word · word with its space · signs · one space."""
SYLLABLES = (
    r"^ ?[\p{Ll}\p{Lo}\p{Lt}\p{Lm}\p{M}]+|\p{Lu}?[^aeiou\P{L}]{0,2}[aeiou]{1,2}(?:[^aeiou\P{L}](?![aeiou]))?"
    r"|\p{L}\p{M}*|[^\p{L}]+"
)
"""A whole lower-case word · a syllable of a capitalised one · one letter of it · anything else."""
CHAT_TEMPLATE = (Path(__file__).parent / "chat_template.jinja").read_text(encoding="utf-8").replace("\n", "")


SPECIAL = re.compile("|".join(map(re.escape, SPECIAL_TOKENS)))


def training_text(seed: int) -> Iterator[str]:
    """Rendered turns, without special tokens, from the training side only."""
    source = random.Random(f"tokenizer {seed}")
    for number in range(TRAINING_DIALOGUES):
        mixture = LONG_MIXTURE if number % 20 == 0 else MIXTURE
        for turn in draw_mixed(source, Split.TRAIN, mixture).turns:
            yield from SPECIAL.split(turn.written)


def train_tokenizer(seed: int) -> Tokenizer:
    """A tokenizer of `VOCABULARY_SIZE` tokens; the special ones come first, `<|pad|>` is 0."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PIECES), behavior="isolated"),
            pre_tokenizers.Split(Regex(SYLLABLES), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY_SIZE,
        special_tokens=[AddedToken(token, special=True, normalized=False) for token in SPECIAL_TOKENS],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(training_text(seed), trainer)
    return tokenizer


def save_tokenizer(tokenizer: Tokenizer, folder: Path) -> None:
    """Writes tokenizer.json and tokenizer_config.json, as `transformers.AutoTokenizer` reads them."""
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": BEGIN,
        "eos_token": END,
        "pad_token": PAD,
        "additional_special_tokens": [token for token in SPECIAL_TOKENS if token not in (BEGIN, END, PAD)],
        "model_max_length": MODEL_MAX_LENGTH,
        "padding_side": "left",
        "clean_up_tokenization_spaces": False,
        "chat_template": CHAT_TEMPLATE,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")


def token_pieces(tokenizer: Tokenizer) -> Pieces:
    """Cuts a text into what its tokens say. A character of several tokens is said by the last of them."""

    def pieces(text: str) -> list[str]:
        ends = [0, *(end for _, end in tokenizer.encode(text, add_special_tokens=False).offsets)]
        return [text[start:end] for start, end in pairwise(ends) if end > start]

    return pieces


def load_tokenizer(folder: Path) -> Tokenizer:
    """The tokenizer that `save_tokenizer` wrote into this folder."""
    return Tokenizer.from_file(str(folder / "tokenizer.json"))
