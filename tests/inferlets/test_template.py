"""A chat template cut into turns: put together again they are what the template writes as a whole."""

from __future__ import annotations

import json
from itertools import chain
from pathlib import Path

import pytest

from cadenza.inferlets.prompt_modules import Template, UnfitTemplate
from cadenza.kernel import model as models
from cadenza.kernel.model.chat import ChatTemplate
from cadenza.kernel.model.tokenizer import Tokenizer

from .wording import Messages, Wording, closing_once_chat, plain_chat, prefacing_chat, silent_chat

BUNDLED = Path(models.__path__[0]) / "bundled"
CHAT = [("system", "Be brief."), ("user", "Who?"), ("assistant", "Me."), ("user", "Why?")]


def messages(turns: list[tuple[str, str]]) -> Messages:
    return [{"role": role, "content": text} for role, text in turns]


def put_together(template: Template, turns: list[tuple[str, str]]) -> list[int]:
    first, *later = turns
    parts = [template.begin(True), template.first(first[0]), template.text(first[1]), template.closing(first[0])]
    for role, text in later:
        parts += [template.later(role), template.text(text), template.closing(role)]
    return list(chain(*parts, template.answer))


@pytest.mark.parametrize("turns", [CHAT, CHAT[1:], CHAT[1:2]])
@pytest.mark.parametrize("chat", [plain_chat, prefacing_chat])
def test_turns_put_together_are_the_chat(chat, turns: list[tuple[str, str]]) -> None:
    wording = Wording()
    template = Template(wording.tokenize, chat, begin=0)
    assert wording.text(put_together(template, turns)) == chat(messages(turns), True)


def test_the_bundled_models_turns_put_together_are_its_chat() -> None:
    vocabulary = json.loads((BUNDLED / "tokenizer.json").read_text())
    size = len(vocabulary["model"]["vocab"]) + len(vocabulary["added_tokens"])
    tokenizer = Tokenizer(vocabulary, size, stop_tokens=[2], begin_token=1)
    chat = ChatTemplate.from_directory(BUNDLED)
    template = Template(tokenizer.encode, lambda said, generate: chat.render(said, generate), begin=1)
    whole = chat.render(messages(CHAT), True)
    assert put_together(template, CHAT) == tokenizer.encode(whole, True)


def test_names_of_special_tokens_in_what_is_said_stay_text() -> None:
    wording = Wording()
    assert wording.tokenize("<end>", True) == [1]
    assert 1 not in Template(wording.tokenize, plain_chat).text("<end>")


def test_a_chat_without_a_begin_token_gets_none() -> None:
    template = Template(Wording().tokenize, prefacing_chat, begin=0)
    assert (template.begin(turns=True), template.begin(turns=False)) == ((), (0,))


def test_a_template_that_closes_turns_otherwise_is_refused() -> None:
    with pytest.raises(UnfitTemplate, match="writes a turn otherwise"):
        Template(Wording().tokenize, closing_once_chat).later("user")


def test_a_template_that_leaves_a_turn_out_is_refused() -> None:
    with pytest.raises(UnfitTemplate, match="does not write system"):
        Template(Wording().tokenize, silent_chat).first("system")
