"""Prompt lookup (Saxena 2023, github.com/apoorvumang/prompt-lookup-decoding): what came behind the last tokens when
they were last there, in this context. Nothing is learnt beyond the generation."""

from __future__ import annotations

from .run import Speculation
from .stream import Lookup


class PromptLookup(Speculation):
    def drafter(self) -> Lookup:
        return Lookup()
