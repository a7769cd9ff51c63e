"""The state of the toy kernel: handles on a virtual clock, files of tokens, a model that says the alphabet.

What it decodes comes one token a nanosecond of that clock. After the token `t` it says the letter that follows it in
the alphabet; `script` overrides that, one list of tokens a run.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Any

from wit_world.imports.types import refuse

SPECIAL = ["<|begin|>", "<|end|>", "<|system|>", "<|user|>", "<|assistant|>", "<|tool|>", "<|call|>"]
BEGIN, END = 256, 257
CONTEXT_TOKENS = 4096


@dataclass
class Toy:
    now: int = 0
    number: int = 0
    ready_at: dict[int, float] = field(default_factory=dict)
    held: dict[int, Any] = field(default_factory=dict)
    files: dict[int, list[int]] = field(default_factory=dict)
    busy: set[int] = field(default_factory=set)
    script: deque[list[int]] = field(default_factory=deque)
    log: list[tuple[str, str]] = field(default_factory=list)
    sent: list[str] = field(default_factory=list)
    inbox: deque[str] = field(default_factory=deque)
    queues: dict[str, deque[str]] = field(default_factory=dict)
    calls: dict[str, int] = field(default_factory=dict)
    computed: int = 0

    def handle(self, held: Any, ready_at: float) -> int:
        self.number += 1
        self.held[self.number] = held
        self.ready_at[self.number] = ready_at
        return self.number

    def get(self, table: dict[int, Any], number: int) -> Any:
        if number not in table:
            refuse("NOT_FOUND", f"no {number}")
        return table[number]

    def is_ready(self, handle: int) -> bool:
        held = self.get(self.held, handle)
        return bool(held) if isinstance(held, deque) else self.ready_at[handle] <= self.now


def next_token(token: int, seed: int) -> int:
    return 97 + (token - 96 + seed) % 26 if 97 <= token <= 122 else 97


def encode(text: str, special: bool) -> list[int]:
    tokens: list[int] = []
    while text:
        name = next((name for name in SPECIAL if special and text.startswith(name)), None)
        if name:
            tokens.append(256 + SPECIAL.index(name))
            text = text[len(name) :]
        else:
            tokens += text[0].encode()
            text = text[1:]
    return tokens


toy = Toy()
