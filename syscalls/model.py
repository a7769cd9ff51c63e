"""Interface `model`: what the model is, and text to tokens and back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from cadenza.kernel.kernel import Kernel
from cadenza.kernel.process import Process
from cadenza.syscalls.suspension import now_or_later


@dataclass(frozen=True, slots=True)
class Facts:
    """WIT's `model-facts`."""

    name: str
    fingerprint: str
    vocabulary_size: int
    context_tokens: int
    page_tokens: int
    stop_tokens: tuple[int, ...]
    begin_token: int | None


class ModelCalls:
    def __init__(self, kernel: Kernel) -> None:
        self._language = kernel.language
        model, device = kernel.language.facts, kernel.engine.link.facts
        self._facts = Facts(model.name, model.fingerprint, device.vocabulary_size, device.context_tokens,
                            device.page_tokens, model.stop_tokens, model.begin_token)

    def facts(self, process: Process) -> Facts:
        return self._facts

    def tokenize(self, process: Process, text: str, special: bool) -> Any:
        return now_or_later(self._language.tokenize(text, special))

    def detokenize(self, process: Process, tokens: Any, special: bool) -> Any:
        return now_or_later(self._language.detokenize(tokens.tolist(), special))

    def vocabulary(self, process: Process, first: int, count: int) -> list[bytes]:
        return self._language.vocabulary(first, count)

    def chat(self, process: Process, messages: str, generate: bool) -> Any:
        return now_or_later(self._language.chat(messages, generate))
