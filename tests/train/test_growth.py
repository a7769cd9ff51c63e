"""What a grown model knew before it grew, it still says; what is new is one token each."""

from __future__ import annotations

import random
import string
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer
from transformers import LlamaForCausalLM

from cadenza.inferlets.async_calls.cml import RESERVED
from train.dialogue import BEGIN
from train.growth import grown_model, grown_tokenizer, new_words
from train.model import load_model, save_model
from train.tokenizer import load_tokenizer

BUNDLED = Path(__file__).parents[2] / "kernel" / "model" / "bundled"
WANTED = ["zyxwo", " zyxwo", "vyx", " zyxwozyxwo", "#!"]


@pytest.fixture(scope="module")
def before() -> Tokenizer:
    return load_tokenizer(BUNDLED)


@pytest.fixture(scope="module")
def after(before: Tokenizer) -> Tokenizer:
    return grown_tokenizer(before, WANTED)


def test_the_bundled_tokenizer_has_every_word_of_calls_as_one_token(before: Tokenizer) -> None:
    assert {word: len(before.encode(word).ids) for word in new_words()} == dict.fromkeys(new_words(), 1)
    assert {word: len(before.encode(word).ids) for word in RESERVED} == dict.fromkeys(RESERVED, 1)


def test_new_words_are_single_and_old_text_is_as_before(before: Tokenizer, after: Tokenizer) -> None:
    assert [len(after.encode(word).ids) for word in WANTED] == [1] * len(WANTED)
    source = random.Random(1)
    for _ in range(200):
        text = "".join(source.choice(string.ascii_letters[:16] + "  .:=1") for _ in range(40))
        assert after.encode(text).ids == before.encode(text).ids
        assert after.decode(after.encode(text + "zyxwo").ids) == text + "zyxwo"


def test_a_grown_model_says_what_it_said(before: Tokenizer, after: Tokenizer, tmp_path: Path) -> None:
    old = load_model(BUNDLED)
    new = grown_model(old, before, after, layers=old.config.num_hidden_layers + 2)
    ids = torch.tensor([before.encode(f"{BEGIN}<|user|>Mara lives in Oslo. Who lives in Oslo?").ids])
    known = before.get_vocab_size()
    with torch.no_grad():
        torch.testing.assert_close(new(ids).logits[..., :known], old(ids).logits, atol=1e-4, rtol=1e-4)
    save_model(new, tmp_path)
    assert LlamaForCausalLM.from_pretrained(tmp_path).config.vocab_size == after.get_vocab_size() > known
