"""Interface `grammar`: what may be sampled, as a grammar that tokens move."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from cadenza.kernel.grammar.matcher import Matcher
from cadenza.kernel.grammar.source import Source
from cadenza.kernel.kernel import Kernel
from cadenza.kernel.limits import GRAMMAR_HISTORY_TOKENS, GRAMMARS_PER_PROCESS
from cadenza.kernel.process import Process
from cadenza.kernel.wasm.seams import Case
from cadenza.kvfs.errors import LimitExceeded


@dataclass(frozen=True, slots=True)
class Status:
    """WIT's `grammar-status`."""

    tokens: int
    may_end: bool
    ended: bool


class GrammarCalls:
    def __init__(self, kernel: Kernel) -> None:
        self._grammars = kernel.grammars

    def compile(self, process: Process, source: Case) -> int:
        _ensure_room(process)
        return process.handles.add(self._grammars.compile(process.owner, Source.of(source.name, source.value)))

    def take_grammar(self, process: Process, grammar: int) -> None:
        process.handles.get(grammar, Matcher).check()

    def fork(self, process: Process, grammar: int) -> int:
        matcher = process.handles.get(grammar, Matcher)
        _ensure_room(process)
        _ensure_history(process, matcher.tokens)
        return process.handles.add(matcher.fork())

    def advance(self, process: Process, grammar: int, tokens: Any) -> None:
        matcher = process.handles.get(grammar, Matcher)
        _ensure_history(process, len(tokens))
        matcher.advance(tokens.tolist())

    def roll_back(self, process: Process, grammar: int, tokens: int) -> None:
        process.handles.get(grammar, Matcher).roll_back(tokens)

    def status(self, process: Process, grammar: int) -> Status:
        matcher = process.handles.get(grammar, Matcher)
        return Status(matcher.tokens, matcher.may_end, matcher.ended)

    def forced(self, process: Process, grammar: int) -> list[int]:
        return process.handles.get(grammar, Matcher).forced()


def _matchers(process: Process) -> list[Matcher]:
    return [each for each in process.handles if isinstance(each, Matcher)]


def _ensure_history(process: Process, tokens: int) -> None:
    """So many more."""
    held = sum(matcher.tokens for matcher in _matchers(process))
    if held + tokens > GRAMMAR_HISTORY_TOKENS:
        raise LimitExceeded(f"the grammars of this process have had {held} tokens since their beginnings, and {tokens} "
                            f"would come; at most {GRAMMAR_HISTORY_TOKENS}: close some, or take tokens back",
                            "grammar_history_tokens")


def _ensure_room(process: Process) -> None:
    process.handles.ensure_room()
    if len(_matchers(process)) >= GRAMMARS_PER_PROCESS:
        raise LimitExceeded(f"process holds {GRAMMARS_PER_PROCESS} grammars, its limit; close some first",
                            "grammars_per_process")
