"""What is wrong with a schema or a prompt.

    MarkupError              also a ValueError; `line` and `source` say where, 0 and "" when it was made in Python
    ├── Malformed            not XML, or an element where it cannot be
    ├── InvalidName          not a name that markup can hold
    ├── DuplicateName        two modules or parameters of one scope have one name
    ├── UnknownName          no such module, parameter, or member of a scaffold
    ├── SourceError          a `src` that cannot be loaded
    │   └── CyclicSource     a `src` that leads to itself
    ├── UnionConflict        two members of one union in one prompt
    ├── RepeatedImport       one module twice in one prompt
    ├── MissingArgument      a parameter without a default, and without an argument
    ├── ArgumentTooLong      an argument or default longer than its parameter reserves
    ├── DoesNotFit           a text longer than the gap that it falls in
    └── UnfitTemplate        the model's chat template cannot be cut into turns
"""

from __future__ import annotations


class Line(int):
    """The number of a line, that knows which `src` it is of; "" is the markup itself."""

    source: str = ""

    @classmethod
    def of(cls, number: int, source: str) -> Line:
        line = cls(number)
        line.source = source
        return line


class MarkupError(ValueError):
    """`line` counts from 1 in `source`, a `src` or "" for the markup itself; 0 when there is no line to name."""

    def __init__(self, message: str, line: int = 0) -> None:
        self.line = int(line)
        self.source = line.source if isinstance(line, Line) else ""
        where = f"{self.source}:{line}: " if self.source else f"line {line}: " if line else ""
        super().__init__(where + message)


class Malformed(MarkupError):
    pass


class InvalidName(MarkupError):
    pass


class DuplicateName(MarkupError):
    pass


class UnknownName(MarkupError):
    pass


class SourceError(MarkupError):
    pass


class CyclicSource(SourceError):
    pass


class UnionConflict(MarkupError):
    pass


class RepeatedImport(MarkupError):
    pass


class MissingArgument(MarkupError):
    pass


class ArgumentTooLong(MarkupError):
    pass


class DoesNotFit(MarkupError):
    pass


class UnfitTemplate(MarkupError):
    pass
