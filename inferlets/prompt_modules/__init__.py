"""Prompt modules: texts computed once, kept as KV files, and put together to prompts. A library for inferlets.

    from prompt_modules import Policy, parse_prompt, parse_schema
    from prompt_modules.library import Library

    async def main(args):
        library = Library(parse_schema(open("cities.xml").read()))
        prompt = parse_prompt('<prompt schema="cities"><rome/><user>What do I see first?</user></prompt>')
        async with await library.context(prompt, Policy("epic", recompute=16)) as context:
            print(await context.generate(max_tokens=100).text())
            print(context.report)

A program that uses it has the folder `prompt_modules` beside its main.py, or a link to it. This module, and all but
`library`, ask nothing of the kernel. See docs/prompt_modules.md.
"""

from .elements import Import, Module, Parameter, Prompt, Scaffold, Schema, Turn, Union
from .errors import (
    ArgumentTooLong,
    CyclicSource,
    DoesNotFit,
    DuplicateName,
    InvalidName,
    Malformed,
    MarkupError,
    MissingArgument,
    RepeatedImport,
    SourceError,
    UnfitTemplate,
    UnionConflict,
    UnknownName,
)
from .layout import Layout, Piece
from .markup import parse_prompt, parse_schema
from .plan import Plan, View, make_plan
from .policy import Policy
from .template import Template
from .writer import write

__all__ = [
    "ArgumentTooLong", "CyclicSource", "DoesNotFit", "DuplicateName", "Import", "InvalidName", "Layout", "Malformed",
    "MarkupError", "MissingArgument", "Module", "Parameter", "Piece", "Plan", "Policy", "Prompt", "RepeatedImport",
    "Scaffold", "Schema", "SourceError", "Template", "Turn", "UnfitTemplate", "Union", "UnionConflict", "UnknownName",
    "View", "make_plan", "parse_prompt", "parse_schema", "write",
]  # fmt: skip
