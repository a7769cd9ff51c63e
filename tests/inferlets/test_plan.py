"""What of a prompt is read and what is computed, under every policy, and whether the outcome is exact."""

from __future__ import annotations

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from cadenza.inferlets.prompt_modules import (
    DoesNotFit,
    Import,
    Layout,
    Module,
    Plan,
    Policy,
    Prompt,
    Scaffold,
    Schema,
    Turn,
    Union,
    make_plan,
    parse_prompt,
)
from cadenza.inferlets.prompt_modules.policy import KINDS

from .wording import Wording

SCHEMA = """<schema name="s">A<module name="b">B1 B2 B3</module><module name="c">C1 C2 C3</module>
<module name="u" cache="false">U</module><module name="p">P <parameter name="x" length="2" default="y"/> Q</module>Z
<scaffold modules="b c"/></schema>""".replace("\n", "")


def planned(policy: str, prompt: str, packed: bool = False, schema: str = SCHEMA) -> tuple[Plan, str, str]:
    """The plan, what it reads (a | between views) and what it computes."""
    wording = Wording()
    text = f"<prompt schema='s'>{prompt}</prompt>"
    plan = make_plan(wording.layout(schema), parse_prompt(text), Policy.named(policy, packed))
    read = [wording.text(view.tokens) for view in plan.views]
    assert wording.text(plan.read_tokens) == "".join(read)
    return plan, "|".join(read), wording.text(plan.tokens)


@pytest.mark.parametrize(("policy", "prompt", "read", "computed", "exactness"), [
    ("full", "<b/>new", "", "<begin>AB1 B2 B3Znew", "exact"),
    ("prefix", "<b/><c/>new", "<begin>AB1 B2 B3C1 C2 C3Z", "new", "exact"),
    ("prefix", "<b/><u/>new", "<begin>AB1 B2 B3", "UZnew", "exact"),
    ("modules", "<b/><c/>new", "<begin>A|B1 B2 B3|C1 C2 C3|Z", "new", "approximate"),
    ("modules", "new", "<begin>AZ", "new", "exact"),
    ("modules", "<u/>new", "<begin>AZ", "Unew", "approximate"),
    ("modules", "<p/>new", "<begin>A|P y Q|Z", "new", "approximate"),
    ("modules", "<p x='z'/>new", "<begin>A|P | Q|Z", "znew", "approximate"),
    ("scaffold", "<b/><c/>new", "<begin>A|B1 B2 B3C1 C2 C3|Z", "new", "approximate"),
    ("scaffold", "<b/>new", "<begin>A|B1 B2 B3|Z", "new", "approximate"),
    ("epic-0", "<b/><c/>new", "<begin>A|B1 B2 B3|C1 C2 C3|Z", "new", "approximate"),
    ("epic-2", "<b/><c/>new", "<begin>A|B2 B3|C2 C3", "B1 C1 Znew", "approximate"),
    ("epic-2", "<p x='z'/>new", "<begin>A", "P z QZnew", "exact"),
    ("epic-9", "<b/><c/>new", "<begin>A", "B1 B2 B3C1 C2 C3Znew", "exact"),
    ("rooted modules", "<b/>new", "<begin>A|B1 B2 B3|Z", "new", "approximate"),
    ("rooted epic-2", "<b/><c/>new", "<begin>A|B1 B2 B3|C2 C3", "C1 Znew", "approximate"),
    ("rooted epic-2", "<b/>new", "<begin>A|B1 B2 B3", "Znew", "exact"),
    ("rooted scaffold", "<b/><c/>new", "<begin>A|B1 B2 B3C1 C2 C3|Z", "new", "approximate"),
])
def test_what_is_read_and_what_is_computed(policy: str, prompt: str, read: str, computed: str, exactness: str) -> None:
    plan, *found = planned(policy, prompt)
    assert (*found, plan.exactness) == (read, computed, exactness)
    assert plan.reused_tokens + plan.computed_tokens == len(plan.read_tokens) + len(plan.tokens)


def test_the_last_token_is_always_computed() -> None:
    for policy in ("prefix", "modules", "scaffold", "epic-0"):
        plan, _, computed = planned(policy, "<b/><c/>")
        assert (computed, len(plan.tokens)) == ("Z", 1)


def test_packed_modules_are_shifted_and_what_moved_is_not_exact() -> None:
    plan, read, _ = planned("modules", "<c/>new", packed=True)
    assert read == "<begin>A|C1 C2 C3|Z"
    assert [view.shift for view in plan.views] == [0, 2, 5]
    assert plan.exactness == "approximate"
    assert planned("modules", "new", packed=True)[0].exactness == "exact"


def test_a_packed_module_is_one_piece_wherever_its_schema_has_it() -> None:
    text = '<schema name="s">{}<module name="b">B1 B2</module></schema>'
    other = '<module name="a">A</module>'
    wording = Wording()
    one, two = (wording.layout(text.format(before)) for before in ("", other))
    for rooted in (False, True):
        made = [layout.pieces(True, rooted)[layout.modules["b"].piece] for layout in (one, two)]  # type: ignore[index]
        assert made[0].digest("model") == made[1].digest("model")
    assert one.modules["b"].piece != two.modules["b"].piece


def test_a_prefix_is_exact_packed_or_not_and_made_of_what_is_before() -> None:
    for packed in (False, True):
        plan, read, _ = planned("prefix", "<c/><b/>new", packed)
        piece = plan.views[0].piece
        assert (read.startswith("<begin>A"), plan.exactness, len(plan.views)) == (True, "exact", 1)
        lengths = []
        while piece is not None:
            lengths.append(len(piece.tokens))
            assert piece.tokens == plan.views[0].piece.tokens[: len(piece.tokens)]
            piece = piece.parent
        assert lengths == [13, 12, 7, 2, 1]


def test_a_larger_scaffold_goes_before_a_smaller_one_and_one_module_is_in_one() -> None:
    wording = Wording()
    modules = [Module(name, f"{name}1 {name}2") for name in "abc"]
    schema = Schema("s", modules, [Scaffold(names, [*names]) for names in ("ab", "abc", "bc")])
    layout = wording.layout(schema)
    plan = make_plan(layout, Prompt("s", [*map(Import, "abc"), "new"]), Policy("scaffold"))
    assert [wording.text(view.piece.tokens) for view in plan.views] == ["<begin>", "a1 a2b1 b2c1 c2"]
    plan = make_plan(layout, Prompt("s", [*map(Import, "bc"), "new"]), Policy("scaffold"))
    assert [wording.text(view.piece.tokens) for view in plan.views] == ["<begin>", "b1 b2c1 c2"]


def test_a_piece_is_named_by_what_it_holds_and_by_the_model() -> None:
    b = Wording().layout(SCHEMA).modules["b"].piece
    other = Wording().layout(SCHEMA.replace('name="s"', 'name="t"')).modules["b"].piece
    moved = Wording().layout(SCHEMA.replace(">A<", ">A A<")).modules["b"].piece
    assert b is not None
    assert other is not None
    assert moved is not None
    assert b.digest("model") == other.digest("model")
    assert b.digest("model") != b.digest("another")
    assert b.digest("model") != moved.digest("model")


def test_a_rooted_module_is_computed_after_what_is_always_before_it() -> None:
    wording = Wording()
    schema = """<schema name="s"><system>A <module name="m">B <parameter name="p" length="2" default="C"/> D
        <module name="n">E</module> F</module> G <module name="o">H</module></system></schema>"""
    layout = wording.layout(schema.replace("\n        ", " "))
    rooted = {wording.text(piece.tokens): piece for piece in layout.pieces(packed=False, rooted=True).values()}
    always = {text: wording.text(piece.parent.tokens) for text, piece in rooted.items() if piece.parent}
    assert always == {
        "<begin><system>A B C D  F": "<begin><system>A ",
        "<begin><system>A B  D E": "<begin><system>A B  D ",
        "<begin><system>A  G H": "<begin><system>A  G ",
    }
    for piece in rooted.values():
        assert list(piece.positions) == sorted(set(piece.positions))


@pytest.mark.parametrize("name", ["", "epic", "epic-x", "full-3", "whole", "rooted", "routed full"])
def test_a_policy_that_is_none_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="no policy"):
        Policy.named(name)


def test_a_policy_is_said_as_it_is_named() -> None:
    for name in ("full", "epic-16", "rooted modules"):
        assert str(Policy.named(name)) == name


def test_an_empty_prompt_has_nothing_to_plan() -> None:
    template = Wording().template()
    template._begin = None
    with pytest.raises(ValueError, match="empty"):
        make_plan(Layout(Schema("s"), template), Prompt("s"))


# --- whatever the prompt ---

WORDS = st.lists(st.sampled_from(["one", "two", "six"]), min_size=0, max_size=3).map(" ".join)
FREE = ("a", "b", "c", "d")


@st.composite
def asked(draw: st.DrawFn) -> tuple[Schema, Prompt]:
    """A schema of four modules, two of them of one union and one nested; a prompt of some of them and text."""
    texts = draw(st.lists(WORDS, min_size=8, max_size=8))
    inner = Module("n", texts[0] + "n")
    a = Module("a", [texts[1], inner, texts[2]], cache=draw(st.booleans()))
    union = Union([Module("b", texts[3] + "b"), Module("c", texts[4] + "c")])
    body = [texts[5], a, texts[6], union, Module("d", texts[7] + "d")]
    schema = Schema("s", [Turn("system", body)] if draw(st.booleans()) else body, [Scaffold("x", ["b", "d"])])
    taken = draw(st.lists(st.sampled_from(FREE), unique=True))
    if {"b", "c"} <= set(taken):
        taken.remove("c")
    items: list[str | Import | Turn] = []
    for name in taken:
        nested = draw(st.booleans()) and name == "a"
        items += [draw(WORDS), Import(name, [draw(WORDS), Import("n")] if nested else [])]
    return schema, Prompt("s", [*items, draw(WORDS), Turn("user", draw(WORDS))])


@given(asked(), st.sampled_from(KINDS), st.integers(0, 4), st.booleans(), st.booleans())
def test_every_token_is_read_or_computed_once_and_the_policy_changes_none(
    made: tuple[Schema, Prompt], kind: str, recompute: int, packed: bool, rooted: bool
) -> None:
    schema, prompt = made
    wording = Wording()
    layout = wording.layout(schema)
    try:
        whole = make_plan(layout, prompt, Policy("full", packed=packed))
    except DoesNotFit:
        assume(False)
    name = ("rooted " if rooted else "") + (f"epic-{recompute}" if kind == "epic" else kind)
    plan = make_plan(layout, prompt, Policy.named(name, packed))
    assert wording.written(plan) == wording.written(whole)
    assert plan.reused_tokens + plan.computed_tokens == whole.computed_tokens
    assert list(plan.positions) == sorted(set(plan.positions))
    assert plan.positions[-1] == whole.positions[-1]
    assert wording.written(plan).endswith("<end><assistant>")
    if kind in ("full", "prefix"):
        assert plan.exactness == "exact"
    if packed:
        assert "~" not in wording.written(plan)


@given(asked())
def test_packing_moves_tokens_and_loses_none(made: tuple[Schema, Prompt]) -> None:
    schema, prompt = made
    wording = Wording()
    layout = wording.layout(schema)
    packed = make_plan(layout, prompt, Policy("full", packed=True))
    try:
        slots = make_plan(layout, prompt, Policy("full"))
    except DoesNotFit:
        assume(False)
    assert sorted(packed.tokens) == sorted(slots.tokens)
