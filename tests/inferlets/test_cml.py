"""CML read in pieces of any size gives the same events; what no grammar allows is refused; interrupts stay whole."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cadenza.inferlets.async_calls.cml import (
    CALL,
    END,
    HEAD,
    INTR,
    MOST_CODE_CHARACTERS,
    RESERVED,
    TRAP,
    WRITTEN_TRAP,
    Call,
    Code,
    Event,
    Malformed,
    Parser,
    State,
    Text,
    Trap,
    neutral,
    written_call,
    written_interrupt,
)

plain = st.text(alphabet="abz [CALENDTRP]'\n(=)", max_size=12).filter(
    lambda text: not any(token in text + "\0" for token in RESERVED)
)
words = plain.filter(lambda text: text.strip() != "")


def merged(events: list[Event]) -> list[Event]:
    """Neighbouring texts as one."""
    found: list[Event] = []
    for event in events:
        if isinstance(event, Text) and found and isinstance(found[-1], Text):
            found[-1] = Text(found[-1].text + event.text)
        else:
            found.append(event)
    return found


def read(pieces: list[str]) -> list[Event]:
    parser = Parser()
    events = [event for piece in pieces for event in parser.feed(piece)]
    return merged(events + parser.finish())


def written(event: Event) -> str:
    match event:
        case Text(text):
            return text
        case Call(identity, code):
            return written_call(code, identity)
        case Trap():
            return WRITTEN_TRAP


speech = st.lists(
    st.one_of(
        plain.filter(bool).map(Text),
        st.builds(Call, st.none() | words.map(str.strip), words.map(str.strip)),
        st.just(Trap()),
    ),
    max_size=6,
)


def splits(text: str) -> list[list[str]]:
    """All ways to cut it."""
    return [[text]] + [[text[:cut], *rest] for cut in range(1, len(text)) for rest in splits(text[cut:])]


def overlaps(events: list[Event]) -> bool:
    """Whether writing the events makes a delimiter that none of them meant, as `[CA` before `LL]` does."""
    text = "".join(map(written, events))
    others = [event for event in events if not isinstance(event, Text)]
    meant = sum(3 if isinstance(event, Call) and event.id else 2 for event in others)
    return sum(text.count(token) for token in RESERVED) != meant


@settings(max_examples=300, deadline=None)
@given(speech, st.randoms())
def test_any_split_gives_the_same_events(events: list[Event], source: random.Random) -> None:
    if overlaps(events):
        return
    text = "".join(map(written, events))
    cuts = sorted(source.sample(range(len(text) + 1), min(len(text), source.randint(0, 12))))
    pieces = [text[start:end] for start, end in zip([0, *cuts], [*cuts, len(text)], strict=True)]
    assert read(pieces) == read([text]) == read(list(text)) == merged(events)


@pytest.mark.parametrize("token", RESERVED)
def test_every_split_of_every_delimiter(token: str) -> None:
    whole = {
        CALL: f"a{CALL}f(){END}b", TRAP: f"a{TRAP}{END}b", END: f"{CALL}f(){END}b", HEAD: f"{CALL}x{HEAD}f(){END}",
        INTR: "",
    }[token]
    before, _, after = whole.partition(token)
    for pieces in splits(token):
        if whole:
            assert read([before, *pieces, after]) == read([before + pieces[0], *pieces[1:-1], pieces[-1] * (
                len(pieces) > 1) + after]) == read([whole])
    for cut in range(1, len(token)):
        parser = Parser()
        assert parser.feed("x" + token[:cut]) == [Text("x")]
        assert parser.finish() == [Text(token[:cut])]


@settings(max_examples=300, deadline=None)
@given(st.lists(st.sampled_from([*RESERVED, "a", "f(1)", " "]), max_size=12))
def test_anything_is_read_or_refused_and_what_is_allowed_is_read(pieces: list[str]) -> None:
    parser = Parser()
    for piece in pieces:
        allowed = piece in parser.reserved_allowed if piece in RESERVED else parser.text_allowed
        if not allowed:
            with pytest.raises(Malformed):      # at the latest where the next delimiters stand
                parser.feed(piece + END + END + INTR)
            return
        parser.feed(piece)
    assert parser.critical is (parser.state is not State.OUTSIDE)
    assert parser.may_finish is not parser.critical


def test_what_the_masks_allow_ends_well() -> None:
    for seed in range(200):
        source, parser = random.Random(seed), Parser()
        for _ in range(30):
            options = sorted(parser.reserved_allowed) + (["a", " b"] if parser.text_allowed else [])
            parser.feed(source.choice(options))
        while not parser.may_finish:
            parser.feed(END if END in parser.reserved_allowed else "a")
        parser.finish()


def test_a_call_that_does_not_end_is_told_to_whoever_listens() -> None:
    parser = Parser()
    parser.feed(CALL + "a" * (MOST_CODE_CHARACTERS - 1))
    assert not parser.overlong
    assert parser.text_allowed
    parser.feed("aa")
    assert parser.overlong
    assert not parser.text_allowed
    assert parser.feed(END) == [Call(None, "a" * (MOST_CODE_CHARACTERS + 1))]


def test_critical_from_call_to_end() -> None:
    parser = Parser()
    seen = []
    for piece in ("Hello", CALL, "x", HEAD, "f(1)", END, TRAP, END, "."):
        parser.feed(piece)
        seen.append(parser.critical)
    assert seen == [False, True, True, True, True, False, True, False, False]


@pytest.mark.parametrize(
    "said",
    [END, HEAD, INTR, f"{CALL}a{CALL}", f"{TRAP}a{END}",
     f"{CALL}a{HEAD}b{HEAD}", f"{TRAP}{TRAP}"],
)  # fmt: skip
def test_malformed_is_refused(said: str) -> None:
    with pytest.raises(Malformed):
        Parser().feed(said)


@pytest.mark.parametrize(("said", "call"), [
    (f"{CALL}{END}", Call(None, "")), (f"{CALL}a{HEAD}{END}", Call("a", "")),
    (f"{CALL} {HEAD}f(){END}", Call(None, "f()")), (f"{CALL}{'a' * 65}{HEAD}f(){END}", Call("a" * 64, "f()")),
])  # fmt: skip
def test_a_call_without_code_or_name_is_a_call(said: str, call: Call) -> None:
    """It fails when it is run: a sampler that follows the grammar may well say it."""
    assert read([said]) == [call]


@pytest.mark.parametrize("said", [f"{CALL}f(", f"{CALL}a{HEAD}f()", TRAP])
def test_a_turn_does_not_end_in_a_critical_section(said: str) -> None:
    parser = Parser()
    parser.feed(said)
    with pytest.raises(Malformed):
        parser.finish()


@given(st.text(max_size=30), st.text(max_size=10) | st.sampled_from(RESERVED))
def test_a_value_can_not_end_its_interrupt(value: str, inside: str) -> None:
    text = written_interrupt("a", value + inside + value)
    assert [text.count(token) for token in RESERVED] == [0, 1, 0, 1, 1]
    assert text.startswith(f"{INTR}a{HEAD}")
    assert text.endswith(END)
    assert neutral("[hello]") == "[hello]"


def test_code() -> None:
    assert Code.parse('find(3, city="Oslo", far=[1, -2])') == Code("find", (3,), (("city", "Oslo"), ("far", [1, -2])))


@pytest.mark.parametrize("code", ["", "find", "a.b()", "f(g())", "f(", "f(*a)", "f(**{'a': 1})", "1", "f(x)"])
def test_code_is_one_call_with_literals(code: str) -> None:
    with pytest.raises(Malformed):
        Code.parse(code)
