"""Markup both ways: XML becomes objects, objects become the XML of them, faults are named with their line."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cadenza.inferlets.prompt_modules import (
    CyclicSource,
    DuplicateName,
    Import,
    InvalidName,
    Malformed,
    MarkupError,
    Module,
    Parameter,
    Prompt,
    Scaffold,
    Schema,
    SourceError,
    Turn,
    Union,
    UnknownName,
    parse_prompt,
    parse_schema,
    write,
)

CITIES = """
<schema name="cities">
  <system>You plan trips.
    <module name="trip">
      For <parameter name="days" length="4" default="two"/> days:
      <union><module name="rome">Rome is &lt;old&gt;.</module><module name="oslo" cache="false"><![CDATA[Oslo & ice]]></module></union>
    </module>
  </system>
  <!-- said of both -->
  <scaffold name="italy" modules="trip trip/rome"/>
</schema>
"""  # noqa: E501
CITIES_OBJECT = Schema(
    "cities",
    [
        Turn("system", [
            "You plan trips. ",
            Module("trip", [
                "For ", Parameter("days", 4, "two"), " days: ",
                Union([Module("rome", "Rome is <old>."), Module("oslo", "Oslo & ice", cache=False)]),
            ]),
        ]),
    ],
    [Scaffold("italy", ["trip", "trip/rome"])],
)  # fmt: skip


def test_a_schema_of_xml_is_the_schema_of_objects() -> None:
    assert parse_schema(CITIES) == CITIES_OBJECT


def test_what_is_written_reads_the_same() -> None:
    assert parse_schema(write(CITIES_OBJECT)) == CITIES_OBJECT


def test_a_prompt_of_xml_is_the_prompt_of_objects() -> None:
    text = """<prompt schema="cities" tone="&quot;kind&quot;"><trip days="three"><rome/> and back</trip>
              <user>What first?<note/></user>Now.</prompt>"""
    children = [Import("trip", [Import("rome"), " and back"], {"days": "three"}),
                Turn("user", ["What first?", Import("note")]), "Now."]
    prompt = Prompt("cities", children, {"tone": '"kind"'})
    assert parse_prompt(text) == prompt
    assert parse_prompt(write(prompt)) == prompt


def test_the_papers_names_of_attributes_are_taken() -> None:
    schema = parse_schema('<schema name="s"><module name="m"><param name="p" len="3"/></module></schema>')
    assert schema == Schema("s", [Module("m", [Parameter("p", 3)])])


def test_an_empty_default_is_not_no_default() -> None:
    schema = Schema("s", [Parameter("p", 3, ""), Parameter("q", 3)])
    assert parse_schema(write(schema)) == schema


@pytest.mark.parametrize(("written", "read"), [
    ("<schema name='s'>  one  </schema>", "  one  "),
    ("<schema name='s'>\n  one\n  two\n</schema>", "one\n  two "),
    ("<schema name='s' xml:space='preserve'>\n one\n</schema>", "\n one\n"),
    ("<schema name='s'>one&#10;</schema>", "one "),
    ("<schema name='s'>a&#38;b<![CDATA[ <&]]> c</schema>", "a&b <& c"),
])
def test_white_space_of_the_layout_is_not_text(written: str, read: str) -> None:
    assert parse_schema(written).children == (read,)


def test_white_space_between_elements_is_text_only_on_one_line() -> None:
    schema = parse_schema("<schema name='s'>\n <module name='a'>A</module> <module name='b'>B</module>\n</schema>")
    assert schema.children == (Module("a", "A"), " ", Module("b", "B"))


# --- sources ---


FILES = {
    "rome.txt": "Rome <is> old.\n",
    "italy.xml": "<module>Italy: <module name='rome' src='rome.txt'/></module>",
    "loop.xml": "<module>\n<module name='again' src='loop.xml'/></module>",
    "broken.xml": "<module>\n\n<module/></module>",
    "twice.xml": "<module><module name='a'/>\n<module name='a'/></module>",
}


def load(source: str) -> str:
    return FILES[source]


def test_a_source_is_text_or_markup_by_its_name() -> None:
    schema = parse_schema("<schema name='s'><module name='italy' src='italy.xml'/></schema>", load)
    assert schema == Schema("s", [Module("italy", ["Italy: ", Module("rome", "Rome <is> old.\n")])])


@pytest.mark.parametrize(("source", "kind", "said"), [
    ("loop.xml", CyclicSource, "loop.xml:2: src 'loop.xml' leads to itself: loop.xml → loop.xml"),
    ("none.txt", SourceError, "line 1: src 'none.txt' cannot be loaded"),
    ("broken.xml", Malformed, "broken.xml:3: <module> lacks name=…"),
    ("twice.xml", DuplicateName, "twice.xml:2: there are two modules called 'a'"),
])
def test_a_fault_of_a_source_names_it(source: str, kind: type[MarkupError], said: str) -> None:
    with pytest.raises(kind) as fault:
        parse_schema(f"<schema name='s'><module name='m' src='{source}'/></schema>", load)
    assert str(fault.value).startswith(said)


def test_without_a_loader_there_are_no_sources() -> None:
    with pytest.raises(SourceError, match="no way to load it"):
        parse_schema("<schema name='s'><module name='m' src='rome.txt'/></schema>")


# --- faults ---

AB = "<scaffold modules='a b'/></schema>"


@pytest.mark.parametrize(("kind", "line", "text"), [
    (Malformed, 2, "<schema name='s'>\n<module name='a'></schema>"),
    (Malformed, 1, "no markup"),
    (Malformed, 1, "<prompt name='s'/>"),
    (Malformed, 1, "<schema/>"),
    (Malformed, 2, "<schema name='s'>\n<modul name='a'/></schema>"),
    (Malformed, 2, "<schema name='s'>\n<module name='a' cached='no'/></schema>"),
    (Malformed, 2, "<schema name='s'>\n<module name='a' cache='no'/></schema>"),
    (Malformed, 2, "<schema name='s'>\n<module name='a' src='x'>text</module></schema>"),
    (Malformed, 3, "<schema name='s'><module name='a'>\n\n<user>hi</user></module></schema>"),
    (Malformed, 2, "<schema name='s'><user>\n<user>hi</user></user></schema>"),
    (Malformed, 2, "<schema name='s'>\n<union>text</union></schema>"),
    (Malformed, 2, "<schema name='s'>\n<union/></schema>"),
    (Malformed, 2, "<schema name='s'>\n<parameter name='p' length='0'/></schema>"),
    (Malformed, 2, "<schema name='s'>\n<parameter name='p' length='few'/></schema>"),
    (Malformed, 2, "<schema name='s'>\n<scaffold modules='a'/><module name='a'/></schema>"),
    (Malformed, 2, "<schema name='s'><module name='a' cache='false'/><module name='b'/>\n" + AB),
    (UnknownName, 2, "<schema name='s'>\n<scaffold modules='a/c b'/><module name='a'/><module name='b'/></schema>"),
    (DuplicateName, 3, "<schema name='s'>\n<module name='a'/>\n<union><module name='a'/></union></schema>"),
    (DuplicateName, 2, "<schema name='s'><user><module name='a'/></user>\n<module name='a'/></schema>"),
    (DuplicateName, 2, "<schema name='s'><parameter name='a' length='1'/>\n<parameter name='a' length='1'/></schema>"),
    (InvalidName, 2, "<schema name='s'>\n<module name='a b'/></schema>"),
    (InvalidName, 2, "<schema name='s'>\n<module name='user'/></schema>"),
])  # fmt: skip
def test_a_fault_of_a_schema_has_its_kind_and_line(kind: type[MarkupError], line: int, text: str) -> None:
    with pytest.raises(MarkupError) as fault:
        parse_schema(text)
    assert (type(fault.value), fault.value.line) == (kind, line)


@pytest.mark.parametrize(("line", "text"), [
    (1, "<prompt/>"),
    (1, "<schema name='s'/>"),
    (2, "<prompt schema='s'>\n<a><user>hi</user></a></prompt>"),
    (2, "<prompt schema='s'>\n<user tone='loud'>hi</user></prompt>"),
    (2, "<prompt schema='s'><user>\n<assistant>hi</assistant></user></prompt>"),
])
def test_a_fault_of_a_prompt_has_its_line(line: int, text: str) -> None:
    with pytest.raises(Malformed) as fault:
        parse_prompt(text)
    assert fault.value.line == line


@pytest.mark.parametrize("text", [
    '<!DOCTYPE schema [<!ENTITY a "aaaa">]>\n<schema name="s">&a;</schema>',
    '<!DOCTYPE schema SYSTEM "file:///etc/passwd"><schema name="s"/>',
    '<schema name="s">&a;</schema>',
    "<schema name='s'>" + "<module name='m'>" * 64 + "</module>" * 64 + "</schema>",
])
def test_entities_document_types_and_depth_are_refused(text: str) -> None:
    with pytest.raises(Malformed):
        parse_schema(text)


def test_a_name_is_free_again_in_another_scope() -> None:
    inner = "<module name='a'><module name='a'/></module><parameter name='a' length='1'/>"
    schema = parse_schema(f"<schema name='s'>{inner}</schema>")
    assert schema.children == (Module("a", [Module("a")]), Parameter("a", 1))


def test_what_xml_cannot_hold_is_not_written() -> None:
    with pytest.raises(Malformed, match=r"U\+0000"):
        write(Schema("s", ["\0"]))


# --- both ways, whatever is in it ---

NAMES = st.from_regex(r"[A-Wa-w_][A-Za-z0-9_.-]{0,5}", fullmatch=True).filter(lambda name: len(name) < 3)
LETTERS = st.characters(codec="utf-8", exclude_categories=["Cs", "Cc"], exclude_characters="\ufffe\uffff")
TEXTS = st.text(LETTERS | st.sampled_from("\t\n\r <>&\"'"), max_size=12)


def modules(children: st.SearchStrategy[list[object]]) -> st.SearchStrategy[Module]:
    return st.builds(Module, NAMES, children, st.booleans())  # type: ignore[arg-type]


def named_once(children: list[object]) -> bool:
    try:
        Schema("s", children)  # type: ignore[arg-type]
    except DuplicateName:
        return False
    return True


LEAVES = TEXTS | st.builds(Parameter, NAMES, st.integers(1, 99), st.none() | TEXTS)
CHILDREN = st.recursive(
    st.lists(LEAVES, max_size=3),
    lambda inner: st.lists(LEAVES | modules(inner) | st.builds(Union, st.lists(modules(inner), min_size=1, max_size=3)),
                           max_size=4),
    max_leaves=12,
).filter(named_once)
ITEMS = st.recursive(
    st.lists(TEXTS, max_size=2),
    lambda inner: st.lists(TEXTS | st.builds(Import, NAMES, inner, st.dictionaries(NAMES, TEXTS, max_size=2)),
                           max_size=3),
    max_leaves=8,
)


@given(NAMES, CHILDREN)
def test_any_schema_reads_as_it_was_written(name: str, children: list[object]) -> None:
    schema = Schema(name, [*children, Turn("user", "x")])  # type: ignore[list-item]
    assert parse_schema(write(schema)) == schema


@given(TEXTS, ITEMS)
def test_any_prompt_reads_as_it_was_written(name: str, items: list[object]) -> None:
    prompt = Prompt(name, [*items, Turn("user", items)], {"a": name})  # type: ignore[list-item]
    assert parse_prompt(write(prompt)) == prompt
