"""The model at work, live: it speaks, its calls run under the virtual clock, and what returns interrupts it.

Many jobs go on side by side, a token each in every step. A row's next token is the likeliest one, or, where the runtime
has something to write, the next token of that.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import torch
from tokenizers import Tokenizer
from tokenizers.decoders import DecodeStream
from torch import Tensor
from transformers import DynamicCache, LlamaForCausalLM

from cadenza.inferlets.async_calls.cml import Malformed
from train.dialogue import CALL, END, PAD, Dialogue, Role
from train.executor import Executor
from train.jobs import Job
from train.runtime import UNKNOWN_FUNCTION, Runtime
from train.tokenizer import load_tokenizer

ROWS_AT_ONCE = 40
MOST_TOKENS = 420


class Host(Protocol):
    """What runs the calls of one job."""

    finished: bool

    def hear(self, piece: str) -> str:
        """A token was said; returns what the host writes after it. Raises `Malformed`."""


@dataclass
class AsynchronousHost:
    """The runtime of train/runtime.py around the model."""

    job: Job
    finished: bool = False
    said: str = ""

    def __post_init__(self) -> None:
        self.runtime = Runtime(self.job)

    def hear(self, piece: str) -> str:
        if piece == END:
            self.runtime.parser.finish()
            self.finished = True
            return ""
        before = self.runtime.parser.critical
        events = self.runtime.hear(piece)
        self.finished = self.runtime.stuck
        if not (before or self.runtime.parser.critical):
            self.said += piece
        return "".join(map(self.runtime.written, events))

    @property
    def codes(self) -> list[str]:
        return list(self.runtime.calls.values())

    @property
    def seconds(self) -> float:
        return self.runtime.executor.now


@dataclass
class SynchronousHost:
    """Calls of one turn run together, and the model waits for all of them."""

    job: Job
    finished: bool = False
    turn: str = ""
    said: str = ""
    codes: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.executor = Executor(self.job.slots)

    @property
    def seconds(self) -> float:
        return self.executor.now

    def hear(self, piece: str) -> str:
        self.executor.advance(self.job.token_seconds)
        if piece != END:
            self.turn += piece
            return ""
        before, *codes = self.turn.split(CALL)
        self.turn = ""
        if not codes:
            self.said, self.finished = before, True
            return ""
        self.codes += codes
        results = [self._run(code, str(number)) for number, code in enumerate(codes)]
        while not self.executor.idle:
            self.executor.wait()
            self.executor.take()
        return "".join(f"{Role.TOOL.token}{value}{END}" for value in results) + Role.ASSISTANT.token

    def _run(self, code: str, identity: str) -> str:
        reply = self.job.reply_to(code)
        self.executor.submit(identity, reply.seconds if reply else 0.0)
        return reply.value if reply else UNKNOWN_FUNCTION


@dataclass
class Row:
    """One job: its prompt's tokens, who runs its calls, and what is still to be written for it."""

    prompt: list[int]
    host: Host
    forced: deque[int] = field(default_factory=deque)
    written: list[int] = field(default_factory=list)
    words: DecodeStream = field(default_factory=lambda: DecodeStream(skip_special_tokens=False))
    ended: bool = False
    malformed: bool = False


class Stage:
    """A model and its tokenizer, on which rows are played."""

    def __init__(self, folder: Path, most_tokens: int = MOST_TOKENS) -> None:
        self.most_tokens = most_tokens
        self.model = LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32)
        self.tokenizer: Tokenizer = load_tokenizer(folder)

    def row(self, dialogue: Dialogue, host: Host) -> Row:
        """A job that is about to begin, after the turns of this dialogue."""
        return Row(self.tokenizer.encode(dialogue.render() + Role.ASSISTANT.token).ids, host)

    def play(self, rows: Sequence[Row]) -> None:
        """Plays all rows to their ends; those of like length together."""
        ordered = sorted(rows, key=lambda row: len(row.prompt))
        for start in range(0, len(ordered), ROWS_AT_ONCE):
            self._play_together(ordered[start : start + ROWS_AT_ONCE])

    @torch.inference_mode()
    def _play_together(self, rows: Sequence[Row]) -> None:
        length = max(len(row.prompt) for row in rows)
        pads = torch.tensor([length - len(row.prompt) for row in rows])
        pad = self.tokenizer.token_to_id(PAD)
        ids = torch.tensor([[pad] * (length - len(row.prompt)) + row.prompt for row in rows])
        for likeliest in self._steps(ids, pads, rows):
            for row, token in zip(rows, likeliest, strict=True):
                if not row.ended:
                    self.say(row, token)

    def _steps(self, ids: Tensor, pads: Tensor, rows: Sequence[Row]) -> Iterator[list[int]]:
        """Feeds the prompts, then what the rows have written last; gives each row's likeliest next token."""
        cache = DynamicCache(config=self.model.config)
        done = 0
        while not all(row.ended for row in rows):
            positions = torch.arange(done, done + ids.shape[1])
            mask = torch.arange(done + ids.shape[1])[None] >= pads[:, None]
            own = (positions[None] - pads[:, None]).clamp(min=0)
            fed = {"attention_mask": mask.long(), "position_ids": own, "past_key_values": cache}
            yield self.model(ids, **fed, logits_to_keep=1).logits[:, -1].argmax(-1).tolist()
            done += ids.shape[1]
            ids = torch.tensor([row.written[-1:] for row in rows])

    def say(self, row: Row, likeliest: int) -> None:
        """The row goes on: with what is to be written, else with this token."""
        if row.forced:
            row.written.append(row.forced.popleft())
            return
        row.written.append(likeliest)
        try:
            inserted = "".join(map(row.host.hear, self._pieces(row, likeliest)))
        except Malformed:
            row.malformed = row.ended = True
            return
        row.forced.extend(self.tokenizer.encode(inserted).ids if inserted else [])
        row.ended = row.host.finished or len(row.written) >= self.most_tokens

    def _pieces(self, row: Row, token: int) -> list[str]:
        """What the token says: nothing while a character is not complete; what never will be one stands by itself."""
        piece: str | None = row.words.step(self.tokenizer, token)
        return [] if piece is None else [part for part in re.split("(\ufffd+)", piece) if part]

    def text(self, row: Row) -> str:
        """All that was said and written after the prompt."""
        return self.tokenizer.decode(row.written, skip_special_tokens=False)


SENTENCES = re.compile(r"(?<=\.)\s*(?=The )")


def sentences(said: str) -> list[str]:
    """What was told, in order of the alphabet: results come in the order of their times."""
    return sorted(part.strip() for part in SENTENCES.split(said) if part.strip())
