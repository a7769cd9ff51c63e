"""Text to tokens and back, for both kinds of vocabulary; special tokens only where they are meant."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, decoders, models, pre_tokenizers, trainers
from tokenizers import Tokenizer as Library

from cadenza.kernel.model.config import ModelConfig
from cadenza.kernel.model.token_bytes import ALPHABET, byte_alphabet
from cadenza.kernel.model.tokenizer import Tokenizer
from cadenza.kvfs.errors import Invalid, NotFound, Unsupported

from .test_config import LLAMA

TEXT = ["the quick brown fox jumps over the lazy dog", "naïve café, 東京 🙂", "system user assistant"] * 4
SPECIAL = ["<|begin|>", "<|end|>", "<|user|>"]


def byte_level_vocabulary() -> dict[str, Any]:
    library = Library(models.BPE())
    library.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    library.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=320, initial_alphabet=alphabet, special_tokens=SPECIAL, show_progress=False
    )
    library.train_from_iterator(TEXT, trainer)
    library.add_tokens([AddedToken("<tool>", special=False), AddedToken("\n\n\n", special=False)])
    library.enable_truncation(5)
    vocabulary: dict[str, Any] = json.loads(library.to_str())
    return vocabulary


def byte_fallback_vocabulary() -> dict[str, Any]:
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), "▁", "h", "i", "▁h", "▁hi"]
    library = Library(models.BPE(
        {token: number for number, token in enumerate(tokens)}, [("▁", "h"), ("▁h", "i")],
        unk_token="<unk>", byte_fallback=True, fuse_unk=True,
    ))
    library.pre_tokenizer = pre_tokenizers.Metaspace("▁", prepend_scheme="first", split=False)
    library.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    library.add_special_tokens(["<s>", "</s>"])
    vocabulary: dict[str, Any] = json.loads(library.to_str())
    return vocabulary


VOCABULARY = byte_level_vocabulary()
LEVEL = Tokenizer(VOCABULARY, 400)
FALLBACK = Tokenizer(byte_fallback_vocabulary(), 264)
IDS = {token["content"]: token["id"] for token in VOCABULARY["added_tokens"]}

texts = st.text(max_size=40)
pieces = st.sampled_from([*SPECIAL, "<tool>", "\n\n\n", "fox", " ", "<|", "end", "|>"])
words = st.lists(pieces, max_size=8).map("".join)


@settings(deadline=None)
@given(st.one_of(texts, words))
def test_text_comes_back(text: str) -> None:
    for special in (True, False):
        assert LEVEL.decode(LEVEL.encode(text, special), True) == text


@settings(deadline=None)
@given(words)
def test_plain_text_holds_no_added_token_but_white_space(text: str) -> None:
    made = LEVEL.encode(text, False)
    assert not set(made) & {IDS[name] for name in (*SPECIAL, "<tool>")}
    assert made.count(IDS["\n\n\n"]) == text.count("\n\n\n")


@settings(deadline=None)
@given(st.one_of(texts, words))
def test_bytes_of_tokens_are_the_text(text: str) -> None:
    assert b"".join(map(LEVEL.token_bytes, LEVEL.encode(text, True))) == text.encode()
    assert b"".join(map(FALLBACK.token_bytes, FALLBACK.encode(text, False))) == (
        (b" " if text and text[0] not in " ▁" else b"") + text.replace("▁", " ").encode()
    )


def test_special_names_become_tokens_where_they_are_meant() -> None:
    assert LEVEL.encode("<|user|>fox<|end|>", True)[0] == IDS["<|user|>"]
    assert LEVEL.encode("<|user|>fox<|end|>", True)[-1] == IDS["<|end|>"]
    assert FALLBACK.encode("<s>hi</s>", True)[0] == 1
    assert not {1, 2} & set(FALLBACK.encode("<s>hi</s>", False))


def test_special_tokens_are_written_out_on_request() -> None:
    tokens = LEVEL.encode("<|user|>fox", True)
    assert LEVEL.decode(tokens, True) == "<|user|>fox"
    assert LEVEL.decode(tokens, False) == "fox"


def test_a_long_text_is_not_cut() -> None:
    assert len(LEVEL.encode("fox " * 100, True)) > 50


def test_half_a_character_is_replaced() -> None:
    half = LEVEL.encode("🙂", False)[:1]
    assert "�" in LEVEL.decode(half, True)
    assert "🙂".encode().startswith(LEVEL.token_bytes(half[0]))


def test_ids_without_a_token_are_empty_and_others_refused() -> None:
    assert LEVEL.token_bytes(399) == b""
    assert LEVEL.decode([399], True) == ""
    for token in (-1, 400, 2**31):
        with pytest.raises(Invalid, match=f"token {token} is outside the vocabulary of 400"):
            LEVEL.token_bytes(token)
        with pytest.raises(Invalid, match=f"{token}"):
            LEVEL.decode([3, token], True)


def test_the_alphabet_holds_every_byte_once() -> None:
    assert sorted(ALPHABET.values()) == list(range(256))
    assert set(byte_alphabet()) == set(pre_tokenizers.ByteLevel.alphabet())


def test_a_vocabulary_larger_than_the_model_is_refused() -> None:
    with pytest.raises(Invalid, match="the model's vocabulary is 100"):
        Tokenizer(VOCABULARY, 100)


def test_added_tokens_that_the_model_has_not_are_left_out() -> None:
    image = {**VOCABULARY["added_tokens"][0], "id": 400, "content": "<image>"}
    tokenizer = Tokenizer({**VOCABULARY, "added_tokens": [*VOCABULARY["added_tokens"], image]}, 400)
    assert tokenizer.encode("fox<image><|end|>", True) == [*LEVEL.encode("fox<image>", False), IDS["<|end|>"]]
    assert tokenizer.token_bytes(399) == b""


def test_an_unknown_decoder_is_refused_by_name() -> None:
    with pytest.raises(Unsupported, match="WordPiece"):
        Tokenizer({**VOCABULARY, "decoder": {"type": "WordPiece", "prefix": "##", "cleanup": True}}, 400)


def test_a_malformed_vocabulary_is_an_invalid() -> None:
    with pytest.raises(Invalid, match=r"tokenizer\.json"):
        Tokenizer({**VOCABULARY, "model": {"type": "BPE", "vocab": 3}}, 400)


def tokenizer_of(directory: Path, **files: dict[str, Any]) -> Tokenizer:
    (directory / "tokenizer.json").write_text(json.dumps(VOCABULARY))
    for name in ("config", "generation_config", "tokenizer_config"):
        (directory / f"{name}.json").unlink(missing_ok=True)
    for name, content in files.items():
        (directory / f"{name}.json").write_text(json.dumps(content))
    return Tokenizer.from_directory(directory, ModelConfig.from_mapping({**LLAMA, "vocab_size": 400}))


def test_stop_tokens_come_from_every_file_that_declares_them(tmp_path: Path) -> None:
    end = IDS["<|end|>"]
    assert tokenizer_of(tmp_path, config={"eos_token_id": 7}).stop_tokens == [7]
    assert tokenizer_of(tmp_path, config={"eos_token_id": [9, 7]}).stop_tokens == [7, 9]
    found = tokenizer_of(
        tmp_path, config={"eos_token_id": 7}, generation_config={"eos_token_id": [8, 7]},
        tokenizer_config={"eos_token": {"content": "<|end|>"}},
    )
    assert found.stop_tokens == sorted([7, 8, end])
    assert tokenizer_of(tmp_path, config={"eos_token_id": None}).stop_tokens == []


def test_the_begin_token_is_the_tokenizers_own(tmp_path: Path) -> None:
    begin = IDS["<|begin|>"]
    config = {"bos_token_id": 9}
    assert tokenizer_of(tmp_path, config=config).begin_token == 9
    assert tokenizer_of(tmp_path, config=config, tokenizer_config={"bos_token": "<|begin|>"}).begin_token == begin
    assert tokenizer_of(tmp_path, config=config, tokenizer_config={"bos_token": None}).begin_token is None
    without = {"bos_token": "<|begin|>", "add_bos_token": False}
    assert tokenizer_of(tmp_path, config=config, tokenizer_config=without).begin_token is None


def test_no_tokenizer(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match=r"tokenizer\.json"):
        Tokenizer.from_directory(tmp_path, ModelConfig.from_mapping(LLAMA))
