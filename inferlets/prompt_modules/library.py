"""A schema as a library of modules on KVFS, and prompts made from it."""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Self

import cadenza

from .context import PromptContext
from .elements import Prompt, Schema
from .layout import Layout
from .markup import Load, parse_prompt, parse_schema
from .plan import Plan, make_plan
from .policy import Policy
from .shelf import Shelf
from .template import Template


def model_template() -> Template:
    """The words of the model that this program runs beside."""
    return Template(cadenza.model.tokenize, cadenza.model.chat, cadenza.model.facts().begin_token)


class Library:
    """The modules of a schema, each computed once and kept as a file.

        library = Library(schema)
        async with await library.context(prompt) as context:
            print(await context.generate(max_tokens=100).text(), context.report)

    `folder`: where the files are, in your home unless it begins with /. Below /shared every user may read them, and so
    learns which texts were used; who computed them pays for them. `durable`: they outlive the daemon. `load`: gives the
    text of a module's `src`.
    """

    def __init__(
        self, schema: Schema | str, folder: str = "modules", *, durable: bool = False, load: Load | None = None
    ) -> None:
        """Raises MarkupError of some kind. Nothing is computed yet."""
        self.schema = parse_schema(schema, load) if isinstance(schema, str) else schema
        self.layout = Layout(self.schema, model_template())
        self._shelf = Shelf(folder, durable)

    async def encode(self, policy: Policy | None = None) -> int:
        """Computes all modules and scaffolds that have no file yet, as that policy reads them; else the first prompts
        do. Answers how many tokens were computed."""
        before = self._shelf.computed_tokens
        policy = policy or Policy()
        await asyncio.gather(*map(self._shelf.file, self.layout.pieces(policy.packed, policy.rooted).values()))
        return self._shelf.computed_tokens - before

    def plan(self, prompt: Prompt | str, policy: Policy | None = None, answer: bool = True) -> Plan:
        """What would be read and what computed. Raises MarkupError of some kind, ValueError for an empty prompt."""
        return make_plan(self.layout, parse_prompt(prompt) if isinstance(prompt, str) else prompt, policy, answer)

    async def context(
        self, prompt: Prompt | str, policy: Policy | None = None, *, answer: bool = True
    ) -> PromptContext:
        """The prompt as a context, from which the model goes on. What is new in it is computed by what is asked first.

        Raises MarkupError of some kind, TooLong, NoPages, LimitExceeded.
        """
        plan = self.plan(prompt, policy, answer)
        before = self._shelf.computed_tokens
        file = await self._shelf.joined(plan.views)
        return PromptContext(file, plan, self.layout.template, self._shelf.computed_tokens - before)

    def close(self) -> None:
        """Closes the files; contexts made from them go on. Idempotent."""
        self._shelf.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()
