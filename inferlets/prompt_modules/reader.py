"""XML read into elements: tags nested as they stand, each with its line. Entities and DTDs are refused: an input can
neither grow by itself nor name a file."""

from __future__ import annotations

from dataclasses import dataclass, field
from xml.parsers import expat

from .elements import Text
from .errors import Line, Malformed

MOST_DEPTH = 64      # of elements in elements
DECLARATION = "a document type and entities are refused: write the text itself"
SPACE = "xml:space"
WHITE = " \t\n\r"


@dataclass
class Element:
    """`children` are texts and elements. White space is as `trimmed` leaves it, unless it is to be preserved."""

    tag: str
    attributes: dict[str, str]
    line: int
    children: list[Element | str] = field(default_factory=list)


def read(text: str, source: str = "") -> Element:
    """The root element. Raises Malformed with its line; `source` is named in it."""
    reader = Reader(source)
    parser = expat.ParserCreate()
    parser.StartElementHandler = reader.begin
    parser.EndElementHandler = reader.end
    parser.CharacterDataHandler = reader.text
    parser.StartDoctypeDeclHandler = reader.refuse
    parser.EntityDeclHandler = reader.refuse
    reader.parser = parser
    try:
        parser.Parse(text, True)
    except expat.ExpatError as error:
        raise Malformed(f"this is no XML: {expat.ErrorString(error.code)}", Line.of(error.lineno, source)) from None
    return reader.root


class Reader:
    """The handlers of one parse: what is open, innermost last."""

    parser: expat.XMLParserType
    root: Element

    def __init__(self, source: str) -> None:
        self._source = source
        self._open: list[tuple[Element, bool]] = []      # with whether its white space is preserved

    def begin(self, tag: str, attributes: dict[str, str]) -> None:
        if len(self._open) == MOST_DEPTH:
            raise Malformed(f"more than {MOST_DEPTH} elements in each other", self._line())
        preserved = self._open[-1][1] if self._open else False
        space = attributes.pop(SPACE, "")
        element = Element(tag, attributes, self._line())
        if self._open:
            self._open[-1][0].children.append(element)
        else:
            self.root = element
        self._open.append((element, space == "preserve" if space else preserved))

    def end(self, tag: str) -> None:
        element, preserved = self._open.pop()
        children = [child if preserved or isinstance(child, Element) else trimmed(child) for child in element.children]
        element.children = [child for child in children if child != ""]

    def text(self, data: str) -> None:
        children = self._open[-1][0].children
        if children and isinstance(children[-1], str):
            children[-1] = Text.at(children[-1] + data, getattr(children[-1], "line", 0))
        else:
            children.append(Text.at(data, self._line()))

    def refuse(self, *declared: object) -> None:
        raise Malformed(DECLARATION, self._line())

    def _line(self) -> Line:
        return Line.of(self.parser.CurrentLineNumber, self._source)


def trimmed(text: str) -> str:
    """White space at either end that has a line break in it is layout of the markup: none at the beginning, and one
    space at the end, so that texts on lines of their own do not run together."""
    body = text.strip(WHITE)
    before, after = text[: len(text) - len(text.lstrip(WHITE))], text[len(text.rstrip(WHITE)) :]
    if not body:
        return "" if "\n" in text else text
    kept = ("" if "\n" in before else before) + body + (" " if "\n" in after else after)
    line = text.line if isinstance(text, Text) else 0
    return Text.at(kept, Line.of(line + before.count("\n"), getattr(line, "source", "")))
