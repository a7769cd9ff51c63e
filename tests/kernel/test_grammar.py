"""What is compiled, what is refused, what is kept; matchers forward and back."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable

import numpy as np
import pytest

from benchmarks.schemas import HOSTILE
from cadenza.kernel.grammar.compiler import Grammars
from cadenza.kernel.grammar.matcher import Matcher
from cadenza.kernel.grammar.source import Source
from cadenza.kernel.grammar.trial import Trial
from cadenza.kernel.grammar.vocabulary import Vocabulary
from cadenza.kernel.limits import (
    GRAMMAR_BYTES,
    GRAMMAR_TOKENS,
    GRAMMARS,
    GRAMMARS_BYTES,
    GRAMMARS_WAITING_PER_USER,
)
from cadenza.kvfs.errors import Invalid, LimitExceeded, NotReady, Unsupported
from tests.kernel.test_grammar_runs import STOP, TOKENS, VOCABULARY, WORDS, begun


def with_grammars(test: Callable[[Grammars], Awaitable[None]], vocabulary: Vocabulary = WORDS) -> None:
    async def run() -> None:
        grammars = Grammars(lambda: vocabulary, VOCABULARY)
        try:
            await test(grammars)
        finally:
            await grammars.close()
    asyncio.run(run())


async def ready(matcher: Matcher) -> Matcher:
    while not matcher.ready:
        await asyncio.sleep(0.005)
    matcher.check()
    return matcher


def allowed(matcher: Matcher) -> list[int]:
    return np.flatnonzero(np.unpackbits(matcher.mask, bitorder="little")).tolist()


def test_what_is_compiled_is_kept_for_its_user() -> None:
    async def test(grammars: Grammars) -> None:
        source = Source.of("choices", ["left", "right \"\n", "größe"])
        first = grammars.compile("ada", source)
        with pytest.raises(NotReady):
            first.check()
        await ready(first)
        assert {ord("l"), ord("r"), ord("g")} <= set(allowed(first))
        again, others = grammars.compile("ada", source), grammars.compile("bob", source)
        assert (again.ready, others.ready) == (True, False), "nobody learns from the clock what others asked for"
        first.advance(list(b"left"))
        assert (first.may_end, again.tokens) == (True, 0)
        await ready(others)
        assert grammars.statistics() | {"kept_bytes": 0} == {
            "kept": 2, "kept_bytes": 0, "waiting": 0, "compiled": 2, "refused": 0}
    with_grammars(test)


def test_what_is_no_grammar_is_refused_with_the_reason() -> None:
    async def test(grammars: Grammars) -> None:
        for kind, text, reason in [
                ("regex", "(a", "unclosed group"), ("lark", "start: nobody", "nobody"),
                ("json-schema", "[1]", "object"), ("json-schema", "{", "not JSON"),
                ("json-schema", '{"type": "color"}', "color"),
                ("json-schema", '{"$ref": "http://example.org/"}', "example.org"),
                ("json-schema", '{"$ref": "#"}', "matches no text")]:
            with pytest.raises(Invalid, match=reason):
                await ready(grammars.compile("ada", Source.of(kind, text)))
        with pytest.raises(LimitExceeded, match="GRAMMAR_BYTES"):
            Source.of("regex", "a" * (GRAMMAR_BYTES + 1))
        for none in ([], [""], ["a", ""]):
            with pytest.raises(Invalid, match="choices"):
                Source.of("choices", none)
    with_grammars(test)


def test_a_model_without_words_has_no_grammars() -> None:
    async def test() -> None:
        def wordless() -> Vocabulary:
            raise Unsupported("no tokenizer")
        with pytest.raises(Unsupported):
            await ready(Grammars(wordless, 8).compile("ada", Source.of("regex", "a")))
    asyncio.run(test())


def test_hostile_grammars_are_refused_or_harmless_and_the_next_is_compiled() -> None:
    async def test(grammars: Grammars) -> None:
        for kind, text in (HOSTILE[name] for name in ("deep brackets", "a deep schema", "crossed alternatives",
                                                      "itself and nothing else", "long and patterned")):
            with pytest.raises((Invalid, LimitExceeded)):
                await ready(grammars.compile("ada", Source.of(kind, text)))
        await ready(grammars.compile("ada", Source.of("regex", "a+")))
    with_grammars(test)


def test_one_that_takes_too_long_ends_its_process_and_not_the_next() -> None:
    async def test() -> None:
        hasty = Trial(WORDS, seconds=0.0)
        with pytest.raises(LimitExceeded, match="GRAMMAR_COMPILE_SECONDS"):
            await hasty.compile(Source.of(*HOSTILE["many rules"]).grammar())
        assert hasty._child is None
        patient = Trial(WORDS, seconds=60.0)
        assert await patient.compile(Source.of("regex", "a+").grammar()) >= 0
        child = patient._child
        assert child is not None
        child.kill()
        await child.wait()
        with pytest.raises(LimitExceeded, match="GRAMMAR_COMPILE_BYTES"):
            await patient.compile(Source.of("regex", "a+").grammar())
        assert await patient.compile(Source.of("regex", "b+").grammar()) >= 0
        await patient.close()
    asyncio.run(test())


def test_what_is_kept_is_bounded() -> None:
    async def test(grammars: Grammars) -> None:
        beginning = (await ready(grammars.compile("ada", Source.of("regex", "a"))))._beginning
        assert beginning is not None
        beginning.held_bytes = GRAMMARS_BYTES // 4
        for number in range(6):
            grammars._keep(("ada", bytes([number])), beginning)
        assert grammars.statistics()["kept_bytes"] <= GRAMMARS_BYTES
        assert grammars._get(("ada", b"\0")) is None
        beginning.held_bytes = 0
        for number in range(GRAMMARS + 9):
            grammars._keep(("bob", number.to_bytes(2, "big")), beginning)
        assert grammars.statistics()["kept"] == GRAMMARS
        assert grammars.compile("ada", Source.of("regex", "a")).ready is False, "those not used for longest went first"
        waiting = [grammars.compile("ada", Source.of("regex", f"a{n}")) for n in range(GRAMMARS_WAITING_PER_USER - 1)]
        with pytest.raises(LimitExceeded, match="wait to be compiled"):
            grammars.compile("ada", Source.of("regex", "b"))
        assert grammars.compile("bob", Source.of("regex", "b")).ready is False
        assert not any(each.ready for each in waiting)
    with_grammars(test)


def test_forward_and_back() -> None:
    matcher = begun("regex", "ab(c|d)*")
    matcher.advance(list(b"ab"))
    assert matcher.may_end
    assert STOP in allowed(matcher)
    fork = matcher.fork()
    with pytest.raises(Invalid, match="token 120, the 3th of 3"):
        matcher.advance(list(b"cdx"))
    assert (matcher.tokens, allowed(matcher)) == (2, allowed(fork)), "all or nothing"
    matcher.advance([*b"cd", STOP])
    assert (matcher.ended, matcher.may_end, allowed(matcher)) == (True, True, [])
    with pytest.raises(Invalid):
        matcher.advance(list(b"c"))
    matcher.roll_back(1)
    assert (matcher.ended, matcher.tokens) == (False, 4)
    matcher.roll_back(4)
    assert matcher.tokens == 0
    assert matcher.forced()
    assert b"".join(TOKENS[token] for token in matcher.forced()) in (b"a", b"ab")
    with pytest.raises(Invalid, match="had 0"):
        matcher.roll_back(1)
    with pytest.raises(LimitExceeded):
        matcher.advance([97] * (GRAMMAR_TOKENS + 1))
    with pytest.raises(Invalid):
        matcher.advance([STOP])
    with pytest.raises(Invalid):
        matcher.advance([2**31])
    assert fork.forced() == []


def test_one_call_takes_only_so_long() -> None:
    """A hundred rules that all go on alike: a second for as many tokens as one call may bring."""
    rules = "start: " + " | ".join(f"r{n}" for n in range(110)) + "\n"
    matcher = begun("lark", rules + "\n".join(f'r{n}: "t" | r{n} "t"' for n in range(110)))
    with pytest.raises(LimitExceeded, match=r"of 1024 took 20 ms, .*give them in parts") as refused:
        matcher.advance(list(b"t" * GRAMMAR_TOKENS))
    assert refused.value.limit == "grammar_advance_seconds"
    assert (matcher.tokens, matcher.may_end) == (0, False), "all or nothing"
    matcher.advance(list(b"t"))
    assert (matcher.tokens, matcher.may_end) == (1, True)


def test_another_spelling_of_what_is_forced_fits() -> None:
    assert begun("regex", "ab").forced()
    pair = next(token for token in range(301, VOCABULARY) if TOKENS[token].isalpha())
    one, two = TOKENS[pair]
    matcher = begun("regex", TOKENS[pair].decode())
    assert allowed(matcher) == [TOKENS.index(TOKENS[pair])], "as the model would spell it"
    matcher.advance([one, two])
    assert matcher.may_end


def test_what_is_too_much_work_for_one_token_is_of_no_use_any_more() -> None:
    rules = "start: " + " | ".join(f"r{n}" for n in range(300)) + "\n"
    matcher = begun("lark", rules + "\n".join(f'r{n}: "x" start "{n}" | "y"' for n in range(300)))
    with pytest.raises(LimitExceeded, match="too much work"):
        matcher.advance(list(b"xxx"))
    for use in (matcher.fork, matcher.forced, lambda: matcher.roll_back(1), lambda: matcher.mask):
        with pytest.raises(LimitExceeded):
            use()


def test_special_tokens_are_named_or_absent() -> None:
    assert STOP not in allowed(begun("regex", "(?s:.)*x"))
    named = begun("lark", 'start: "a" <|stop|> "b"')
    named.advance([97, STOP])
    assert (named.ended, named.may_end) == (False, False), "here it is a word of the grammar"
    named.advance([98])
    assert named.may_end


def test_json_is_written_as_programs_do() -> None:
    matcher = begun("json-schema", json.dumps({"type": "array", "items": {"const": 1}, "minItems": 2, "maxItems": 2}))
    matcher.advance(list(b"[1, 1]"))
    assert matcher.may_end
    loose = {"const": [1], "x-guidance": {"whitespace_flexible": True}}
    begun("json-schema", json.dumps(loose)).advance(list(b"[ 1 ]"))
