"""A prompt made of modules, as a context that the model continues."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Self

import cadenza
from cadenza import File

from .elements import SPEAKERS, Speaker
from .plan import Exactness, Plan
from .template import Template


@dataclass(frozen=True)
class Report:
    """How a prompt came to be. `encoded_tokens`: computed for module files that were not there; the next prompt reads
    them."""

    policy: str
    exactness: Exactness
    reused_tokens: int
    computed_tokens: int
    encoded_tokens: int


class PromptContext(cadenza.Context):
    """A context that begins with modules. Its further messages are turns after those of the prompt.

    `tokens` are in the order in which they are read, modules first; `text` is by position.
    """

    def __init__(self, file: File, plan: Plan, template: Template, encoded_tokens: int) -> None:
        """Takes over the file, which holds what the plan reads."""
        super().__init__(file, [*plan.read_tokens, *plan.tokens], plan.positions)
        self.plan = plan
        self.report = Report(str(plan.policy), plan.exactness, plan.reused_tokens, plan.computed_tokens, encoded_tokens)
        self._template = template
        self._answer: Literal["none", "due", "open"] = plan.answer

    @property
    def text(self) -> str:
        """All of it as text, special tokens written out."""
        after = self.tokens[self.report.reused_tokens + self.report.computed_tokens :]
        return cadenza.model.detokenize([*self.plan.ordered_tokens, *after], special=True)

    def message(self, role: str, text: str, **more: object) -> None:
        """Adds a turn of system, user or assistant."""
        speaker: Speaker | None = next((speaker for speaker in SPEAKERS if speaker == role), None)
        if speaker is None or more:
            raise cadenza.Invalid(f"a prompt of modules has turns of {', '.join(SPEAKERS)}, with a text each")
        self._write(generate=False)
        if self._answer == "open":
            closing = self._template.closing("assistant")
            self._tokens += closing[1:] if self._tokens[-1:] == [*closing[:1]] else closing
        self._tokens += self._template.later(speaker) + self._template.text(text) + self._template.closing(speaker)
        self._answer = "due"

    def truncate(self, tokens: int) -> None:
        """As Context.truncate: what is left is plain text."""
        super().truncate(tokens)
        self._answer = "none"

    def fork(self) -> Self:
        """As Context.fork."""
        other = super().fork()
        other.plan, other.report = self.plan, self.report
        other._template, other._answer = self._template, self._answer
        return other

    def _write(self, generate: bool) -> None:
        super()._write(generate)
        if generate and self._answer == "due":
            self._tokens += self._template.answer
            self._answer = "open"
