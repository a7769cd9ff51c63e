"""Which tokens a prompt has, and where they stand: in slots and packed."""

from __future__ import annotations

import pytest

from cadenza.inferlets.prompt_modules import (
    ArgumentTooLong,
    DoesNotFit,
    Malformed,
    MarkupError,
    MissingArgument,
    Policy,
    RepeatedImport,
    UnionConflict,
    UnknownName,
    make_plan,
    parse_prompt,
)

from .wording import Wording

LETTERS = """<schema name="s">A<module name="b">B1 B2</module><module name="c">C1 C2 C3</module>D</schema>"""
CHAT = """<schema name="s"><system>A<module name="b">B</module><module name="c">C1 C2</module></system></schema>"""


def put(schema: str, prompt: str, packed: bool, answer: bool = True) -> str:
    wording = Wording()
    plan = make_plan(wording.layout(schema), parse_prompt(prompt), Policy(packed=packed), answer)
    return wording.written(plan)


def both(schema: str, prompt: str) -> tuple[str, str]:
    inner = f"<prompt schema='s'>{prompt}</prompt>"
    return put(schema, inner, packed=False), put(schema, inner, packed=True)


@pytest.mark.parametrize(("prompt", "slots", "packed"), [
    ("", "<begin>A~~~~~~~~D", "<begin>AD"),
    ("<b/>", "<begin>AB1 B2~~~~~D", "<begin>AB1 B2D"),
    ("<c/>", "<begin>A~~~C1 C2 C3D", "<begin>AC1 C2 C3D"),
    ("<b/><c/>", "<begin>AB1 B2C1 C2 C3D", "<begin>AB1 B2C1 C2 C3D"),
    ("<c/><b/>", "<begin>AB1 B2C1 C2 C3D", "<begin>AC1 C2 C3B1 B2D"),
    ("new", "<begin>A~~~~~~~~Dnew", "<begin>ADnew"),
    ("<b/>new", "<begin>AB1 B2~~~~~Dnew", "<begin>AB1 B2Dnew"),
    ("new<c/>", "<begin>Anew~~C1 C2 C3D", "<begin>AnewC1 C2 C3D"),
    ("new<c/>and more", "<begin>Anew~~C1 C2 C3Dand more", "<begin>AnewC1 C2 C3Dand more"),
])
def test_modules_keep_their_slots_or_move_up(prompt: str, slots: str, packed: str) -> None:
    assert both(LETTERS, prompt) == (slots, packed)


def test_new_text_stands_in_the_gap_that_modules_leave() -> None:
    schema = LETTERS.replace("C1 C2 C3", "C C").replace("D<", '<module name="d">D</module><')
    assert both(schema, "<b/>x<d/>") == ("<begin>AB1 B2x~~D", "<begin>AB1 B2xD")


def test_new_text_that_fits_no_gap_is_refused_and_says_what_helps() -> None:
    with pytest.raises(DoesNotFit, match=r"3 tokens of new text fall into a gap of 0.*pack the prompt") as fault:
        put(LETTERS, "<prompt schema='s'><b/>\nx y<c/></prompt>", packed=False)
    assert fault.value.line == 2
    assert put(LETTERS, "<prompt schema='s'><b/>x y<c/></prompt>", packed=True) == "<begin>AB1 B2x yC1 C2 C3D"


def test_a_module_starts_where_what_is_before_it_ends() -> None:
    schema = """<schema name="s">A <module name="b">B <module name="n">N N</module> E</module><union>
                <module name="u">U</module>
                <module name="v">V V V</module></union><parameter name="p" length="2" default=""/>Z</schema>"""
    layout = Wording().layout(schema)
    places = {path: (placed.start, placed.end) for path, placed in layout.modules.items()}
    assert places == {"": (0, 18), "b": (3, 10), "b/n": (5, 8), "u": (10, 11), "v": (10, 15)}
    assert len(layout) == 18


def test_the_layout_of_a_module_is_the_same_whatever_is_imported() -> None:
    layout = Wording().layout(LETTERS)
    for prompt in ("<c/>", "<b/><c/>", "new<c/>"):
        plan = make_plan(layout, parse_prompt(f"<prompt schema='s'>{prompt}</prompt>"))
        view = next(view for view in plan.views if view.piece == layout.modules["c"].piece)
        assert (view.first, view.count, view.shift) == (0, 5, 0)


# --- what is nested ---

NESTED = """<schema name="s"><module name="a">A<module name="m">M M M</module><module name="n">N</module>Z</module>
</schema>"""


@pytest.mark.parametrize(("prompt", "slots", "packed"), [
    ("<a/>", "<begin>A~~~~~~Z", "<begin>AZ"),
    ("<a><n/></a>", "<begin>A~~~~~NZ", "<begin>ANZ"),
    ("<a>x<n/></a>y", "<begin>Ax~~~~NZy", "<begin>AxNZy"),
    ("<a><m/></a>", "<begin>AM M M~Z", "<begin>AM M MZ"),
    ("<a><m/>x</a>", "<begin>AM M MxZ", "<begin>AM M MxZ"),
])
def test_a_nested_module_is_imported_within_its_parent(prompt: str, slots: str, packed: str) -> None:
    assert both(NESTED, prompt) == (slots, packed)


# --- parameters ---

PARAMETERS = """<schema name="s">In <module name="m">for <parameter name="p" length="3" default="one"/> or
 <parameter name="q" length="2"/>!</module></schema>"""


@pytest.mark.parametrize(("prompt", "slots", "packed"), [
    ("<m q='x'/>", "<begin>In for one~~ or x~!", "<begin>In for one or x!"),
    ("<m p='a b' q=''/>", "<begin>In for a b or ~~!", "<begin>In for a b or !"),
])
def test_arguments_stand_in_the_room_of_their_parameter(prompt: str, slots: str, packed: str) -> None:
    assert both(PARAMETERS.replace("\n ", " "), prompt) == (slots, packed)


def test_an_argument_of_the_schema_is_the_prompts() -> None:
    schema = "<schema name='s'>Dear <parameter name='who' length='1'/>!</schema>"
    assert put(schema, "<prompt schema='s' who='you'/>", packed=False) == "<begin>Dear you!"


def test_the_default_given_as_an_argument_is_read_not_computed() -> None:
    layout = Wording().layout(PARAMETERS)
    left, given = (parse_prompt(f"<prompt schema='s'><m {p} q='x'/></prompt>") for p in ("", "p='one'"))
    assert make_plan(layout, left) == make_plan(layout, given)


# --- turns ---


@pytest.mark.parametrize(("prompt", "slots", "packed"), [
    ("<b/><c/><user>q</user>",
     "<begin><system>ABC1 C2<end><user>q<end><assistant>", "<begin><system>ABC1 C2<end><user>q<end><assistant>"),
    ("<b/><user>q</user>",
     "<begin><system>AB~~~<end><user>q<end><assistant>", "<begin><system>AB<end><user>q<end><assistant>"),
    ("<b/>x<user>q</user>",
     "<begin><system>ABx~~<end><user>q<end><assistant>", "<begin><system>ABx<end><user>q<end><assistant>"),
    ("x<c/><user>q</user>",
     "<begin><system>AxC1 C2<end><user>q<end><assistant>", "<begin><system>AxC1 C2<end><user>q<end><assistant>"),
    ("<b/>",
     "<begin><system>AB~~~<end><assistant>", "<begin><system>AB<end><assistant>"),
])
def test_turns_of_the_schema_and_of_the_prompt(prompt: str, slots: str, packed: str) -> None:
    assert both(CHAT, prompt) == (slots, packed)


def test_new_text_goes_on_in_the_turn_of_its_import_if_it_is_packed() -> None:
    prompt = "<prompt schema='s'><b/><c/> and x</prompt>"
    assert put(CHAT, prompt, packed=True) == "<begin><system>ABC1 C2 and x<end><assistant>"
    with pytest.raises(DoesNotFit):
        put(CHAT, prompt, packed=False)


def test_a_prompt_puts_plain_modules_into_turns_of_its_own() -> None:
    schema = "<schema name='s'><module name='b'>B</module><module name='c'>C</module></schema>"
    prompt = "<prompt schema='s'><system>See <c/> and <b/></system><user>q</user></prompt>"
    assert put(schema, prompt, packed=True) == "<begin><system>See C and B<end><user>q<end><assistant>"


def test_a_turn_between_turns_of_the_schema_stands_between_them() -> None:
    schema = """<schema name="s"><system>A<module name="b">B</module></system>
                <user>C<module name="d">D</module></user></schema>"""
    prompt = "<prompt schema='s'><b/><assistant>x</assistant><d/></prompt>"
    packed = "<begin><system>AB<end><assistant>x<end><user>CD<end><assistant>"
    assert put(schema, prompt, packed=True) == packed


def test_without_a_chat_there_is_no_answer_to_open() -> None:
    assert put("<schema name='s'>A</schema>", "<prompt schema='s'>x</prompt>", packed=False) == "<begin>Ax"
    assert put(CHAT, "<prompt schema='s'><b/></prompt>", packed=True, answer=False) == "<begin><system>AB<end>"


# --- faults ---


@pytest.mark.parametrize(("kind", "schema", "prompt"), [
    (UnknownName, LETTERS, "\n<x/>"),
    (UnknownName, NESTED, "\n<m/>"),
    (UnknownName, LETTERS, "\n<b p='1'/>"),
    (RepeatedImport, LETTERS, "<b/>\n<b/>"),
    (MissingArgument, PARAMETERS, "\n<m/>"),
    (ArgumentTooLong, PARAMETERS, "\n<m q='a b'/>"),
    (UnionConflict, "<schema name='s'><union><module name='a'/><module name='b'/></union></schema>", "<a/>\n<b/>"),
    (Malformed, CHAT, "\n<user><b/></user>"),
    (Malformed, CHAT, "<b/>\n<user>q</user><c/>"),
])
def test_a_fault_of_a_prompt_has_its_kind_and_line(kind: type[MarkupError], schema: str, prompt: str) -> None:
    with pytest.raises(MarkupError) as fault:
        put(schema, f"<prompt schema='s'>{prompt}</prompt>", packed=True)
    assert (type(fault.value), fault.value.line) == (kind, 2)


def test_a_prompt_for_another_schema_is_refused() -> None:
    with pytest.raises(UnknownName, match="the prompt is for schema 't'"):
        put(LETTERS, "<prompt schema='t'/>", packed=True)


@pytest.mark.parametrize("schema", [
    "<schema name='s'>\n<parameter name='p' length='1' default='a b'/></schema>",
    "<schema name='s'><module name='a'>A</module><module name='b'/>\n<scaffold modules='a b'/></schema>",
    """<schema name='s'><union><module name='a'>A</module><module name='b'>B</module></union>
       <scaffold modules='a b'/></schema>""",
])
def test_a_schema_that_cannot_be_laid_out_has_its_line(schema: str) -> None:
    with pytest.raises(MarkupError) as fault:
        Wording().layout(schema)
    assert fault.value.line == 2
