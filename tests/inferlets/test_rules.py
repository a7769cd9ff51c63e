"""CML as text under the kernel's grammar: a model that says anything can say nothing but well-formed CML."""

from __future__ import annotations

import random
from codecs import getincrementaldecoder
from functools import cache

import numpy as np
import pytest

from cadenza.inferlets.async_calls.cml import (
    CALL,
    END,
    HEAD,
    INTR,
    RESERVED,
    TRAP,
    WRITTEN_TRAP,
    Call,
    Code,
    Parser,
    Text,
    written_call,
)
from cadenza.inferlets.async_calls.rules import RULES
from cadenza.kernel.grammar.matcher import Beginning, Matcher
from cadenza.kernel.grammar.source import Source
from cadenza.kernel.grammar.vocabulary import Vocabulary, compiled

from .test_cml import splits

PIECES = {token[first:end] for token in RESERVED for first in range(6) for end in range(first + 2, len(token) + 1)}
JOINED = ["][", "]x", "f(", "g()", "f(1)[END]", "[END][CALL]", "a[END]", "[TRAP][END]", "[END][TRAP][END][CALL]g(", "é"]
TOKENS = [bytes([byte]) for byte in range(256)] + [text.encode() for text in [*sorted(PIECES), *JOINED]] + [b"<|end|>"]
STOP = len(TOKENS) - 1
WALKS, STEPS = 120, 150


@cache
def beginning() -> Beginning:
    vocabulary = Vocabulary(TOKENS, frozenset({STOP}), (STOP,))
    made = compiled(vocabulary.tokenizer(), Source("lark", RULES).grammar())
    assert not made.is_error(), made.get_error()
    return Beginning(made, len(TOKENS), len(TOKENS), (STOP,))


def grammar(said: str = "") -> Matcher:
    matcher = Matcher()
    matcher.begin(beginning())
    for byte in said.encode():
        matcher.advance([byte])
    return matcher


def allowed(matcher: Matcher) -> list[int]:
    return [int(token) for token in np.flatnonzero(np.unpackbits(matcher.mask, bitorder="little")[: len(TOKENS)])]


def takes(text: str) -> bool:
    """Whether it may be said to its end, and the turn end there."""
    matcher = grammar()
    return matcher._idle().validate_tokens(list(text.encode())) == len(text.encode()) and grammar(text).may_end


def test_a_random_model_says_nothing_but_well_formed_cml_and_interrupts_come_in_between() -> None:
    """The parser follows what is said; what the runtime writes moves neither. Every call can be made."""
    calls = traps = stood = 0
    for seed in range(WALKS):
        source, matcher, parser = random.Random(seed), grammar(), Parser()
        letters = getincrementaldecoder("utf-8")()
        context = ""
        for _ in range(STEPS):
            half = bool(letters.getstate()[0])
            assert matcher.may_end is (parser.may_finish and not half)
            if parser.may_finish and not parser.held and not half and source.random() < 0.2:
                context += f"{INTR}x{HEAD}1{END}"
                stood += 1
            options = allowed(matcher)
            long = [token for token in options if len(TOKENS[token]) > 1 and token != STOP]
            token = source.choice(long if long and source.random() < 0.6 else options)
            matcher.advance([token])
            if token == STOP:
                break
            said = letters.decode(TOKENS[token])
            context += said
            for event in parser.feed(said):
                if isinstance(event, Call):
                    Code.parse(event.code)
                    calls += 1
                else:
                    traps += not isinstance(event, Text)
        assert context.count(INTR) == context.count(f"{INTR}x{HEAD}1{END}"), "nobody else says it"
    assert calls > WALKS / 4
    assert traps > WALKS
    assert stood > WALKS


@pytest.mark.parametrize("token", RESERVED)
def test_every_split_of_every_delimiter_is_seen(token: str) -> None:
    """In a text only [CALL] and [TRAP] come to their end, however they are cut; all else of a delimiter is text."""
    numbers = {spelled.decode(errors="replace"): number for number, spelled in enumerate(TOKENS)}
    for pieces in splits(token):
        matcher = grammar("so ")
        for piece in pieces[:-1]:
            assert numbers[piece] in allowed(matcher)
            matcher.advance([numbers[piece]])
            assert matcher.may_end
        assert (numbers[pieces[-1]] in allowed(matcher)) is (token in (CALL, TRAP)), pieces


@pytest.mark.parametrize("text", [
    "", "[", "[[CAL", "[END [HEAD [INTR CALL] ]", "[CAL[CALL[END[", "x\n\ty é\u2028", "[call][End]",
    *[f"[{token}" for token in ("CALLS]", "TRAPS]", "EN]", "INTR[", "HEADING]")],
    WRITTEN_TRAP, f"a{WRITTEN_TRAP}b{WRITTEN_TRAP}", written_call("f()"), written_call("f(1, 'a', b=[1, 2.5])", "id 7"),
    "[[CALL]x[HEAD]f(a={'k': -3, \"l\": None}, b=True)[END]]", written_call(r'f("[END\"[HEAD", "[Chapter] é")'),
])  # fmt: skip
def test_what_may_be_said(text: str) -> None:
    assert takes(text)
    Parser().feed(text)


@pytest.mark.parametrize("text", [
    *RESERVED, f"a{CALL}", f"{TRAP}a{END}", f"{TRAP} {END}", f"{CALL}{END}", f"{CALL}f{END}", f"{CALL}f(x){END}",
    f"{CALL}a{HEAD}b{HEAD}f(){END}", f"{CALL}a[b{HEAD}f(){END}", f"{CALL}{HEAD}f(){END}", written_call("if(1)"),
    written_call("f('[END]')"), written_call("f(a=1, 2)"), written_call("f(01)"), written_call("a.b()"),
    written_call("f('\n')"), f"{CALL}f(){END}{END}", f"{INTR}a{HEAD}1{END}",
])  # fmt: skip
def test_what_may_not(text: str) -> None:
    assert not takes(text)
