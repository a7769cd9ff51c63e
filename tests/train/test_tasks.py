"""The generator is deterministic and never lets a held-out value into training; the texts survive the tokenizer."""

from __future__ import annotations

import json
import random
import re
from functools import cache
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jinja2.sandbox import ImmutableSandboxedEnvironment
from tokenizers import Tokenizer

from train.data import NOT_LEARNT, encode, join
from train.dialogue import BEGIN, CALL, END, SPECIAL_TOKENS, Dialogue, Role
from train.runtime import asynchronous_turn
from train.tasks import ASYNCHRONOUS, KINDS, LONG_MIXTURE, MIXTURE, SYNCHRONOUS, draw_dialogue, draw_mixed
from train.tasks.arithmetic import evaluate
from train.tasks.calls import MULTI_STEP
from train.tokenizer import CHAT_TEMPLATE, load_tokenizer, token_pieces
from train.world import Split, World, split_of

INTERRUPTED = {task.kind for task in ASYNCHRONOUS}
BUNDLED = Path(__file__).parents[2] / "kernel" / "model" / "bundled"


@cache
def bundled_tokenizer() -> Tokenizer:
    return load_tokenizer(BUNDLED)


@pytest.fixture
def tokenizer() -> Tokenizer:
    return bundled_tokenizer()


def dialogues(seed: int, split: Split, count: int = 40) -> list[Dialogue]:
    source = random.Random(seed)
    return [draw_dialogue(kind, source, split) for kind in KINDS for _ in range(count)]


PLAIN = [kind for kind in KINDS if kind not in {task.kind for task in (*ASYNCHRONOUS, *SYNCHRONOUS)}]


def calls(dialogue: Dialogue) -> list[tuple[str, str]]:
    """Tool and argument of each call."""
    pattern = re.compile(re.escape(CALL) + r"(\w+)\((.*)\)")
    matches = [pattern.fullmatch(turn.text) for turn in dialogue.turns if turn.is_call]
    assert None not in matches
    return [(match[1], match[2]) for match in matches if match]


def test_same_seed_same_dialogues() -> None:
    assert dialogues(3, Split.TRAIN, 5) == dialogues(3, Split.TRAIN, 5)
    assert dialogues(3, Split.TRAIN, 5) != dialogues(4, Split.TRAIN, 5)


@pytest.mark.parametrize("split", Split)
def test_everything_drawn_is_of_its_split(split: Split) -> None:
    for number in range(300):
        source = random.Random(number)
        world = World(source, split, reach=20)
        source.choice(list(KINDS.values())).dialogue(world)
        assert all(split_of(role, value) is split for role, value in world.used)


def test_no_held_out_value_is_used_in_training() -> None:
    used: dict[Split, set[tuple[str, str]]] = {split: set() for split in Split}
    for split in Split:
        for number in range(1000):
            world = World(random.Random(number), split)
            random.Random(number).choice(list(KINDS.values())).dialogue(world)
            used[split] |= world.used
    assert not used[Split.TRAIN] & used[Split.HELD_OUT]
    assert {role for role, _ in used[Split.TRAIN]} == {role for role, _ in used[Split.HELD_OUT]}


def test_calls_are_of_their_split() -> None:
    roles = {"calculator": "expression", "weather": "city", "clock": "city"}
    for split in Split:
        plain = [dialogue for dialogue in dialogues(5, split) if dialogue.kind in PLAIN]
        found = [call for dialogue in plain for call in calls(dialogue)]
        assert {tool for tool, _ in found} == set(roles)
        assert all(split_of(roles[tool], argument) is split for tool, argument in found)


def test_turns_alternate() -> None:
    for dialogue in dialogues(6, Split.TRAIN):
        roles = [turn.role for turn in dialogue.turns]
        follows = list(zip(dialogue.turns, roles[1:], strict=False))
        assert Role.SYSTEM not in roles[1:]
        assert roles[-1] is Role.ASSISTANT
        assert all(following is Role.TOOL for turn, following in follows if turn.is_call)
        assert all(following is Role.ASSISTANT for turn, following in follows if turn.role is Role.USER)
        assert all(following in (Role.TOOL, Role.ASSISTANT) for turn, following in follows if turn.role is Role.TOOL)


def test_mixtures_name_kinds() -> None:
    assert set(MIXTURE) | set(LONG_MIXTURE) == set(KINDS)


@pytest.mark.parametrize(
    ("expression", "value"),
    [("17*23", "391"), ("2+3*4", "14"), ("20-6/4", "18.50"), ("3-10", "-7"), ("8/2*3", "12"), ("1/3", "0.33")],
)
def test_calculator(expression: str, value: str) -> None:
    assert evaluate(expression) == value


@settings(max_examples=300, deadline=None)
@given(st.text())
def test_any_text_survives_the_tokenizer(text: str) -> None:
    tokenizer = bundled_tokenizer()
    if any(token in text for token in SPECIAL_TOKENS):
        return
    ids = tokenizer.encode(text, add_special_tokens=False).ids
    assert tokenizer.decode(ids, skip_special_tokens=False) == text


@settings(deadline=None)
@given(st.integers(min_value=0, max_value=10**12))
def test_numbers_are_digits(number: int) -> None:
    tokens = bundled_tokenizer().encode(str(number), add_special_tokens=False).tokens
    assert tokens == list(str(number))


def test_a_name_is_the_same_tokens_everywhere(tokenizer: Tokenizer) -> None:
    world = World(random.Random(1), Split.HELD_OUT)
    for _ in range(200):
        name = tokenizer.encode(world.city(), add_special_tokens=False).ids
        called = tokenizer.encode(f"weather({tokenizer.decode(name)})", add_special_tokens=False).ids
        said = tokenizer.encode(f"Mara lives in {tokenizer.decode(name)}.", add_special_tokens=False).ids
        assert name == called[-1 - len(name) : -1] == said[-1 - len(name) : -1]


def test_special_tokens_are_single(tokenizer: Tokenizer) -> None:
    for token in SPECIAL_TOKENS:
        assert len(tokenizer.encode(f"a{token}b", add_special_tokens=False).ids) == 3


def test_template_renders_as_the_trainer_does() -> None:
    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
    template = environment.from_string(CHAT_TEMPLATE)
    for dialogue in dialogues(8, Split.TRAIN, 10):
        assert template.render(messages=dialogue.messages(), add_generation_prompt=False) == dialogue.render()


def test_template_opens_the_answer_and_renders_tool_calls() -> None:
    template = ImmutableSandboxedEnvironment().from_string(CHAT_TEMPLATE)
    call = {"type": "function", "function": {"name": "calculator", "arguments": {"expression": "17*23"}}}
    messages = [{"role": "user", "content": "Hi."}, {"role": "assistant", "content": None, "tool_calls": [call]}]
    expected = f"{BEGIN}<|user|>Hi.{END}<|assistant|>{CALL}calculator(17*23){END}"
    assert template.render(messages=messages, add_generation_prompt=False) == expected
    assert template.render(messages=messages, add_generation_prompt=True) == expected + "<|assistant|>"


def test_bundled_template_is_the_trainers() -> None:
    config = json.loads((BUNDLED / "tokenizer_config.json").read_text(encoding="utf-8"))
    assert config["chat_template"] == CHAT_TEMPLATE


def test_transformers_applies_the_template() -> None:
    transformers = pytest.importorskip("transformers")
    automatic = transformers.AutoTokenizer.from_pretrained(BUNDLED)
    for dialogue in dialogues(9, Split.HELD_OUT, 3):
        assert automatic.apply_chat_template(dialogue.messages(), tokenize=False) == dialogue.render()


def test_pieces_encode_as_the_whole(tokenizer: Tokenizer) -> None:
    plain = [dialogue for dialogue in dialogues(10, Split.TRAIN, 10) if dialogue.kind not in INTERRUPTED]
    for dialogue in plain:
        assert encode(tokenizer, dialogue).ids == tokenizer.encode(dialogue.render(), add_special_tokens=False).ids


def test_a_batch_learns_what_the_assistant_says(tokenizer: Tokenizer) -> None:
    source = random.Random(11)
    dialogues = [encode(tokenizer, draw_mixed(source, Split.TRAIN, {"weather": 1})) for _ in range(2)]
    first, second = (len(dialogue.ids) for dialogue in dialogues)
    batch = join(dialogues)
    said = [token for encoded in dialogues for token, flag in zip(encoded.ids, encoded.learnt, strict=True) if flag]
    assert batch.targets[batch.targets != NOT_LEARNT].tolist() == said
    assert batch.lengths == (first, second)
    assert batch.positions.tolist() == [*range(first), *range(second)]


@pytest.mark.parametrize("text", ['[CALL]hotel[HEAD]find_hotel(guest="Gøjol")[END]', " The hotel is 日本.[TRAP][END]"])
def test_pieces_are_what_the_tokens_say(tokenizer: Tokenizer, text: str) -> None:
    """Time passes token by token, and a character of several tokens is heard with the last of them."""
    pieces = token_pieces(tokenizer)(text)
    assert "".join(pieces) == text
    assert all(pieces)
    tokens = [tokenizer.decode([token], skip_special_tokens=False) for token in tokenizer.encode(text).ids]
    assert [piece for piece in pieces if piece.isascii()] == [token for token in tokens if token.isascii()]


def test_interrupts_come_behind_the_models_own_tokens(tokenizer: Tokenizer) -> None:
    """Time passes as it does when the model speaks, token by token; a guess puts interrupts elsewhere."""
    elsewhere = 0
    for seed in range(40):
        job = MULTI_STEP.job(World(random.Random(seed), Split.TRAIN, 12))
        spoken, guessed = asynchronous_turn(job, token_pieces(tokenizer)), asynchronous_turn(job)
        ends = {end for _, end in tokenizer.encode(spoken.text, add_special_tokens=False).offsets}
        assert {found.after for found in spoken.interruptions} <= ends
        elsewhere += spoken.interruptions != guessed.interruptions
    assert elsewhere > 10
