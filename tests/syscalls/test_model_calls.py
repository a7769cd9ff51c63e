"""Interface `model`: facts, tokens and text. Long texts block the caller, and nobody else."""

from __future__ import annotations

import json
from typing import Any

import pytest

from cadenza.kernel.language import Language
from cadenza.kernel.limits import INLINE_TEXT_BYTES, TEXT_BYTES, VOCABULARY_COUNT
from cadenza.kernel.model.chat import ChatTemplate
from cadenza.kernel.model.facts import ModelFacts
from cadenza.kernel.model.token_bytes import byte_alphabet
from cadenza.kernel.model.tokenizer import Tokenizer
from cadenza.kernel.wasm.seams import Suspension
from cadenza.kvfs.errors import Invalid, LimitExceeded, Unsupported

from .desk import Desk, in_loop

END = 256
VOCABULARY = 300         # some of the model's tokens name nothing
TEMPLATE = ("{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}"
            "{% if add_generation_prompt %}<me>{% endif %}")


def byte_language() -> Language:
    """One token a byte, and `<|end|>`."""
    vocabulary: dict[str, Any] = {
        "version": "1.0",
        "model": {"type": "BPE", "vocab": byte_alphabet(), "merges": []},
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False},
        "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
        "added_tokens": [{"id": END, "content": "<|end|>", "single_word": False, "lstrip": False, "rstrip": False,
                          "normalized": False, "special": True}],
    }
    facts = ModelFacts("bytes", "f" * 64, VOCABULARY, 512, (END,), None)
    return Language(facts, Tokenizer(vocabulary, VOCABULARY, [END]), ChatTemplate(TEMPLATE))


def desk_of_bytes() -> Desk:
    return Desk(language=byte_language(), vocabulary_size=VOCABULARY, context_tokens=512, page_tokens=8)


@in_loop
async def test_facts_are_those_of_the_model_and_the_device() -> None:
    async with desk_of_bytes() as desk:
        facts = desk.ask(desk.spawn(), "model.facts")
        assert (facts.name, facts.fingerprint, facts.vocabulary_size) == ("bytes", "f" * 64, VOCABULARY)
        assert (facts.context_tokens, facts.page_tokens) == (512, 8)
        assert (list(facts.stop_tokens), facts.begin_token) == ([END], None)


@in_loop
async def test_text_becomes_tokens_and_text_again() -> None:
    async with desk_of_bytes() as desk:
        process = desk.spawn()
        for text in ("", "hello", "é → 猫", "a<|end|>b"):
            tokens = desk.ask(process, "model.tokenize", text, False)
            assert list(tokens) == list(text.encode())
            assert desk.ask(process, "model.detokenize", tokens, False) == text


@in_loop
async def test_special_tokens_are_made_and_written_only_when_asked() -> None:
    async with desk_of_bytes() as desk:
        process = desk.spawn()
        tokens = desk.ask(process, "model.tokenize", "a<|end|>b", True)
        assert list(tokens) == [97, END, 98]
        assert desk.ask(process, "model.detokenize", tokens, False) == "ab"
        assert desk.ask(process, "model.detokenize", tokens, True) == "a<|end|>b"


@in_loop
async def test_bytes_that_are_no_text_become_replacement_characters() -> None:
    async with desk_of_bytes() as desk:
        assert desk.ask(desk.spawn(), "model.detokenize", [97, 0xFF, 98], False) == "a\ufffdb"


@in_loop
async def test_only_long_texts_suspend_the_caller() -> None:
    async with desk_of_bytes() as desk:
        process = desk.spawn()
        short, long = "x" * INLINE_TEXT_BYTES, "x" * (INLINE_TEXT_BYTES + 1)
        assert len(desk.ask(process, "model.tokenize", short, False)) == INLINE_TEXT_BYTES
        assert isinstance(desk.ask(process, "model.tokenize", long, False), Suspension)
        tokens = await desk.ask_and_wait(process, "model.tokenize", long, False)
        assert list(tokens) == list(long.encode())
        assert await desk.ask_and_wait(process, "model.detokenize", tokens, False) == long


@in_loop
async def test_an_error_of_a_suspended_call_is_its_answer() -> None:
    async with desk_of_bytes() as desk:
        with pytest.raises(Invalid, match="vocabulary"):
            await desk.ask_and_wait(desk.spawn(), "model.detokenize", [1] * 5000 + [VOCABULARY], False)


@in_loop
async def test_a_call_whose_program_is_gone_is_abandoned() -> None:
    async with desk_of_bytes() as desk:
        process = desk.spawn()
        later = desk.ask(process, "model.tokenize", "x" * 100_000, False)
        wakes: list[bool] = []
        later.subscribe(lambda: wakes.append(True))
        process.kill()
        later.abandon()
        later.abandon()
        await desk.settle()
        assert not wakes


@in_loop
async def test_texts_are_limited_in_bytes() -> None:
    async with desk_of_bytes() as desk, Desk() as wordless:
        process = desk.spawn()
        most = "[" + " " * (TEXT_BYTES - 2) + "]"
        assert await desk.ask_and_wait(process, "model.chat", most, False) == ""
        with pytest.raises(Unsupported):                 # not too long, and no time spent on it
            await wordless.ask_and_wait(wordless.spawn(), "model.tokenize", most, False)
        for call in ("model.chat", "model.tokenize"):
            for long in (most + " ", "é" * (TEXT_BYTES // 2 + 1)):
                with pytest.raises(Invalid, match=str(TEXT_BYTES)):
                    await desk.ask_and_wait(process, call, long, False)


@pytest.mark.parametrize("token", [VOCABULARY, 2**31, 2**32 - 1])
@in_loop
async def test_tokens_outside_the_vocabulary_are_no_text(token: int) -> None:
    async with desk_of_bytes() as desk:
        with pytest.raises(Invalid, match=f"token {token} "):
            desk.ask(desk.spawn(), "model.detokenize", [97, token], False)


@in_loop
async def test_the_vocabulary_in_bytes() -> None:
    async with desk_of_bytes() as desk:
        process = desk.spawn()
        assert desk.ask(process, "model.vocabulary", 0xC3, 2) == [b"\xc3", b"\xc4"]
        assert desk.ask(process, "model.vocabulary", END, 2) == [b"<|end|>", b""]
        assert len(desk.ask(process, "model.vocabulary", 0, VOCABULARY_COUNT)) == VOCABULARY
        assert desk.ask(process, "model.vocabulary", 2**32 - 1, 5) == []
        with pytest.raises(LimitExceeded, match=str(VOCABULARY_COUNT)) as refused:
            desk.ask(process, "model.vocabulary", 0, VOCABULARY_COUNT + 1)
        assert refused.value.limit == "vocabulary_count"


@in_loop
async def test_a_chat_becomes_the_text_of_the_models_template() -> None:
    async with desk_of_bytes() as desk:
        process = desk.spawn()
        messages = json.dumps([{"role": "user", "content": "hi"}])
        assert desk.ask(process, "model.chat", messages, False) == "<user>hi"
        assert desk.ask(process, "model.chat", messages, True) == "<user>hi<me>"
        for wrong in ("", "{}", "[1]", '[{"content": "nobody"}]', "[" * 100_000):
            with pytest.raises(Invalid):
                await desk.ask_and_wait(process, "model.chat", wrong, True)


@in_loop
async def test_a_model_without_words_says_so() -> None:
    async with Desk() as desk:
        process = desk.spawn()
        for call, arguments in (("tokenize", ["hi", False]), ("detokenize", [[1], False]), ("vocabulary", [0, 1]),
                                ("chat", ["[]", True])):
            with pytest.raises(Unsupported):
                desk.ask(process, f"model.{call}", *arguments)
