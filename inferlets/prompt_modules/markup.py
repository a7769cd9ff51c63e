"""Prompt Cache's markup: schemas and prompts from XML. `writer` is the way back.

    <schema name="cities">
      <system>You plan trips. <module name="trip">A trip of <parameter name="days" length="4"/> days.
        <union><module name="rome" src="rome.txt"/><module name="oslo">…</module></union></module></system>
      <scaffold name="italy" modules="trip trip/rome"/>
    </schema>

    <prompt schema="cities"><trip days="three"><rome/></trip><user>What do I see first?</user></prompt>

`param` and `len` are taken for `parameter` and `length`. `src` of a module is loaded by a function of yours: what ends
in .xml is markup, a `module` whose content it is; anything else is text.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

from .elements import (
    SPEAKERS,
    Child,
    Import,
    Item,
    Module,
    Parameter,
    Prompt,
    Scaffold,
    Schema,
    Speaker,
    Text,
    Turn,
    Union,
)
from .errors import CyclicSource, Line, Malformed, SourceError
from .reader import Element, read

Load = Callable[[str], str]
"""The text of a `src`. An OSError or KeyError of it becomes a SourceError with the line."""


def parse_schema(text: str, load: Load | None = None) -> Schema:
    """A schema from XML. Raises MarkupError of some kind, with the line."""
    return SchemaReader(load).schema(read(text))


def parse_prompt(text: str) -> Prompt:
    """A prompt from XML. Raises MarkupError of some kind, with the line. Its names are looked up by a layout."""
    root = read(text)
    if root.tag != "prompt":
        raise Malformed(f"a prompt begins with <prompt>, not <{root.tag}>", root.line)
    arguments = dict(root.attributes)
    if "schema" not in arguments:
        raise Malformed("<prompt> says no schema: <prompt schema=…>", root.line)
    return Prompt(arguments.pop("schema"), tuple(items(root)), arguments, root.line)


def items(element: Element) -> Iterator[Item]:
    """What a prompt, a turn of it or an import holds."""
    for child in element.children:
        if isinstance(child, str):
            yield child
        elif child.tag in SPEAKERS:
            attributes(child)
            yield Turn(speaker_of(child), tuple(items(child)), child.line)
        else:
            yield Import(child.tag, tuple(items(child)), child.attributes, child.line)


def speaker_of(element: Element) -> Speaker:
    return next(speaker for speaker in SPEAKERS if speaker == element.tag)


def attributes(element: Element, *needed: str, **optional: str) -> dict[str, str]:
    """The attributes of an element, with the defaults of those that may be left out. Raises Malformed for others."""
    missing = [name for name in needed if name not in element.attributes]
    unknown = [name for name in element.attributes if name not in needed and name not in optional]
    if missing or unknown:
        wrong = f"lacks {missing[0]}=…" if missing else f"has no {unknown[0]}=…"
        raise Malformed(f"<{element.tag}> {wrong}", element.line)
    return {**optional, **element.attributes}


class SchemaReader:
    """Elements become a schema. `_loading`: the sources that we are in, outermost first."""

    def __init__(self, load: Load | None) -> None:
        self._load = load
        self._loading: list[str] = []

    def schema(self, root: Element) -> Schema:
        if root.tag != "schema":
            raise Malformed(f"a schema begins with <schema>, not <{root.tag}>", root.line)
        name = attributes(root, "name")["name"]
        parts = [child for child in root.children if not (isinstance(child, Element) and child.tag == "scaffold")]
        scaffolds = [child for child in root.children if isinstance(child, Element) and child.tag == "scaffold"]
        children = tuple(self._children(replace(root, children=parts)))
        return Schema(name, children, tuple(map(scaffold, scaffolds)), root.line)

    def _children(self, element: Element) -> Iterator[Child]:
        for child in element.children:
            yield child if isinstance(child, str) else self._child(child)

    def _child(self, element: Element) -> Child:
        match element.tag:
            case "module":
                return self._module(element)
            case "union":
                attributes(element)
                members = [child for child in self._children(element) if isinstance(child, Module)]
                if len(members) < len(element.children):
                    raise Malformed("a union holds modules and nothing else", element.line)
                return Union(members, element.line)
            case "parameter" | "param":
                return parameter(element)
            case "system" | "user" | "assistant":
                attributes(element)
                return Turn(speaker_of(element), tuple(self._children(element)), element.line)
        raise Malformed(f"a schema has no <{element.tag}> here", element.line)

    def _module(self, element: Element) -> Module:
        known = attributes(element, "name", cache="true", src="")
        name, cache, source = known["name"], known["cache"], known["src"]
        if cache not in ("true", "false"):
            raise Malformed(f'cache="{cache}": say "true" or "false"', element.line)
        if source and element.children:
            raise Malformed(f"module {name!r} has a src, and content of its own: give one of them", element.line)
        children = self._loaded(source, element.line) if source else tuple(self._children(element))
        return Module(name, children, cache == "true", element.line)

    def _loaded(self, source: str, line: int) -> tuple[Child, ...]:
        """What a `src` holds. Raises SourceError, CyclicSource."""
        if source in self._loading:
            chain = " → ".join([*self._loading, source])
            raise CyclicSource(f"src {source!r} leads to itself: {chain}", line)
        if self._load is None:
            raise SourceError(f"src {source!r}: no way to load it was given", line)
        try:
            text = self._load(source)
        except (OSError, KeyError) as error:
            raise SourceError(f"src {source!r} cannot be loaded: {error}", line) from error
        return self._parsed(text, source) if source.endswith(".xml") else (Text.at(text, Line.of(1, source)),)

    def _parsed(self, text: str, source: str) -> tuple[Child, ...]:
        root = read(text, source)
        if root.tag != "module":
            raise Malformed(f"markup of a src begins with <module>, not <{root.tag}>", root.line)
        self._loading.append(source)
        try:
            return tuple(self._children(root))
        finally:
            self._loading.pop()


def parameter(element: Element) -> Parameter:
    given = {{"len": "length"}.get(name, name): value for name, value in element.attributes.items()}
    known = attributes(replace(element, attributes=given), "name", "length", default="")
    if not known["length"].isdecimal() or element.children:
        raise Malformed("a parameter is empty, and its length a number of tokens", element.line)
    return Parameter(known["name"], int(known["length"]), given.get("default"), element.line)


def scaffold(element: Element) -> Scaffold:
    known = attributes(element, "modules", name="")
    if element.children:
        raise Malformed("a scaffold is empty: it names its modules, as modules=…", element.line)
    members = tuple(known["modules"].replace(",", " ").split())
    return Scaffold(known["name"] or " ".join(members), members, element.line)
