"""Packing: several dialogues in one row, none of which sees another.

    row      d0 d0 d0 d0 d0 d1 d1 d1 d2 d2 d2 d2 d2 d2 pad      d0 attends to d0 only, d1 to d1 only, ...
    targets  -- -- A  A  E  -- A  E  -- -- -- A  A  E  --       the next token where the assistant speaks

Positions run on through the row: rotary attention sees distances only, so this equals starting again at 0.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

import torch
from tokenizers import Tokenizer
from torch import Tensor

from train.dialogue import BEGIN, END, Dialogue, Role
from train.tasks import LONG_MIXTURE, MIXTURE, draw_mixed
from train.world import Split

NOT_LEARNT = -100
MISFITS_TO_CLOSE = 4
"""A batch is full once this many dialogues in a row found no room."""


@dataclass(frozen=True)
class Encoded:
    """A dialogue as token ids, and for each of them whether it is learnt. Both lists have the same length."""

    ids: list[int]
    learnt: list[bool]


@dataclass(frozen=True)
class Batch:
    """One step's rows. B rows, L tokens each.

    ids [B, L] int64; targets [B, L] int64, the id that follows or `NOT_LEARNT`; mask [B, 1, L, L] float32, to be
    added to the attention scores: 0 where the key is visible, very negative elsewhere; dialogues: how many.
    """

    ids: Tensor
    targets: Tensor
    mask: Tensor
    dialogues: int


@dataclass(frozen=True)
class Shape:
    """Rows and tokens a row of a batch, and the kinds that fill it."""

    rows: int
    length: int
    mixture: dict[str, float]


SHORT = Shape(6, 384, MIXTURE)
LONG = Shape(3, 768, LONG_MIXTURE)


def token_id(tokenizer: Tokenizer, token: str) -> int:
    """The id of a special token, which the tokenizer must have."""
    number = tokenizer.token_to_id(token)
    assert number is not None, token
    return number


def encode(tokenizer: Tokenizer, dialogue: Dialogue) -> Encoded:
    """The dialogue's tokens: learnt are the words of the assistant and the `<|end|>` after them.

    Special tokens stand between the turns, so that encoding turn by turn equals encoding the whole. An interruption
    goes after the token in which its place lies: it is met between any two tokens, also inside a word.
    """
    turns = dialogue.turns
    begin, *heads = (token_id(tokenizer, token) for token in [BEGIN, *(turn.role.token for turn in turns)])
    said = tokenizer.encode_batch([turn.text + END for turn in turns], add_special_tokens=False)
    written = [interruption.text for turn in turns for interruption in turn.interruptions]
    inserted = iter(tokenizer.encode_batch_fast(written, add_special_tokens=False))
    ids: list[int] = [begin]
    learnt = [False]
    for turn, head, words in zip(turns, heads, said, strict=True):
        ids.append(head)
        done = 0
        places = [_token_at(words.offsets, interruption.after) for interruption in turn.interruptions]
        learnt.append(False)
        for place in [*places, len(words.ids)]:
            ids += words.ids[done:place]
            learnt += [turn.role is Role.ASSISTANT] * (place - done)
            done = place
            if place < len(words.ids):      # behind each piece but the last stands an interruption
                between = next(inserted).ids
                ids += between
                learnt += [False] * len(between)
    return Encoded(ids, learnt)


def _token_at(offsets: list[tuple[int, int]], after: int) -> int:
    """How many tokens the first so many characters reach into."""
    return sum(start < after for start, _ in offsets)


def pack(tokenizer: Tokenizer, source: random.Random, shape: Shape, reach: int) -> Batch:
    """A batch of new training dialogues, each put into the first row that has room for it."""
    rows: list[list[Encoded]] = [[] for _ in range(shape.rows)]
    room = [shape.length] * shape.rows
    misfits = 0
    while misfits < MISFITS_TO_CLOSE:
        encoded = encode(tokenizer, draw_mixed(source, Split.TRAIN, shape.mixture, reach))
        fitting = next((row for row in range(shape.rows) if room[row] >= len(encoded.ids)), None)
        if fitting is None:
            misfits += 1
            continue
        misfits = 0
        rows[fitting].append(encoded)
        room[fitting] -= len(encoded.ids)
    return collate(rows, shape.length)


def collate(rows: list[list[Encoded]], length: int) -> Batch:
    """The rows as tensors; what is left of a row is filled with `<|pad|>` (id 0) as a dialogue of its own."""
    ids = torch.zeros(len(rows), length, dtype=torch.long)
    learnt = torch.zeros(len(rows), length, dtype=torch.bool)
    owner = torch.full((len(rows), length), -1, dtype=torch.long)
    for row, dialogues in enumerate(rows):
        start = 0
        for number, encoded in enumerate(dialogues):
            end = start + len(encoded.ids)
            ids[row, start:end] = torch.tensor(encoded.ids)
            learnt[row, start:end] = torch.tensor(encoded.learnt)
            owner[row, start:end] = number
            start = end
    targets = torch.full_like(ids, NOT_LEARNT)
    targets[:, :-1] = torch.where(learnt[:, 1:], ids[:, 1:], NOT_LEARNT)
    same = owner[:, :, None] == owner[:, None, :]
    visible = same & torch.ones(length, length, dtype=torch.bool).tril()
    mask = torch.zeros(visible.shape).masked_fill_(~visible, torch.finfo(torch.float32).min)
    return Batch(ids, targets, mask[:, None], sum(len(row) for row in rows))
