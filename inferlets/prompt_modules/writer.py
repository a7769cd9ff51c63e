"""Schemas and prompts as XML. What is written, read again, is equal to what there was."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from .elements import Child, Import, Item, Module, Parameter, Prompt, Scaffold, Schema, Turn, Union
from .errors import InvalidName, Malformed
from .reader import trimmed

ESCAPES = {"&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;", "\r": "&#13;"}
IN_ATTRIBUTES = {**ESCAPES, "\n": "&#10;", "\t": "&#9;"}
NOT_XML = re.compile(r"[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
PRESERVE = {"xml:space": "preserve"}


def write(element: Schema | Prompt) -> str:
    """One line of XML, more where texts have more. Modules that came from a `src` are written out.

    Raises Malformed for characters that no XML can hold.
    """
    if isinstance(element, Schema):
        scaffolds = "".join(map(written, element.scaffolds))
        return tag("schema", {"name": element.name, **space(element)}, content(element.children) + scaffolds)
    if "schema" in element.arguments:
        raise InvalidName("a parameter of the schema itself cannot be called 'schema'", element.line)
    attributes = {"schema": element.schema, **element.arguments, **space(element)}
    return tag("prompt", attributes, content(element.children))


def content(children: Iterable[object]) -> str:
    return "".join(map(written, children))


def written(element: object) -> str:
    match element:
        case str():
            return escaped(element, ESCAPES)
        case Module(name, children, cache):
            return tag("module", {"name": name} if cache else {"name": name, "cache": "false"}, content(children))
        case Union(members):
            return tag("union", {}, content(members))
        case Parameter(name, length, default):
            known = {} if default is None else {"default": default}
            return tag("parameter", {"name": name, "length": str(length), **known})
        case Turn(speaker, children):
            return tag(speaker, {}, content(children))
        case Scaffold(name, members):
            return tag("scaffold", {"name": name, "modules": " ".join(members)})
        case Import(name, children, arguments):
            return tag(name, arguments, content(children))
    raise TypeError(f"{type(element).__name__} is no part of a schema or prompt")


def tag(name: str, attributes: Mapping[str, str], inner: str = "") -> str:
    said = "".join(f' {key}="{escaped(value, IN_ATTRIBUTES)}"' for key, value in attributes.items())
    return f"<{name}{said}>{inner}</{name}>" if inner else f"<{name}{said}/>"


def escaped(text: str, escapes: Mapping[str, str]) -> str:
    wrong = NOT_XML.search(text)
    if wrong:
        raise Malformed(f"XML cannot hold the character U+{ord(wrong[0]):04X} of {text[:40]!r}")
    return "".join(escapes.get(character, character) for character in text)


def space(element: Schema | Prompt) -> dict[str, str]:
    """Says that white space is to be preserved, if reading would trim some."""
    return PRESERVE if any(trimmed(text) != text for text in texts(element.children)) else {}


def texts(children: Iterable[Child | Item]) -> Iterable[str]:
    for child in children:
        if isinstance(child, str):
            yield child
        elif isinstance(child, Module | Turn | Import):
            yield from texts(child.children)
        elif isinstance(child, Union):
            yield from texts(child.members)
