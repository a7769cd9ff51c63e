"""Packing: dialogues one behind another in one row, none of which sees another.

    ids      d0 d0 d0 d0 d0 d1 d1 d1 d2 d2 d2 d2 d2 d2      d0 attends to d0 only, d1 to d1 only, ...
    targets  -- -- A  A  E  -- A  E  -- -- -- A  A  E       the next token where the assistant speaks

Attention is computed dialogue by dialogue, everything else over the whole row: nothing is spent on padding, nor on
places that do not see each other, which would be a third of a step.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from tokenizers import Tokenizer
from torch import Tensor

from train.dialogue import BEGIN, END, Dialogue, Role
from train.tasks import LONG_MIXTURE, MIXTURE, draw_mixed
from train.tokenizer import token_pieces
from train.world import Split

NOT_LEARNT = -100
MISFITS_TO_CLOSE = 4
"""A batch is full once this many dialogues, one after another, found no room."""


@dataclass(frozen=True)
class Encoded:
    """A dialogue as token ids, and for each of them whether it is learnt. Both lists have the same length."""

    ids: list[int]
    learnt: list[bool]


@dataclass(frozen=True)
class Batch:
    """One step's dialogues, T tokens in all.

    ids [T] int64; targets [T] int64, the id that follows or `NOT_LEARNT`; lengths: the tokens of each dialogue.
    """

    ids: Tensor
    targets: Tensor
    lengths: tuple[int, ...]

    @property
    def positions(self) -> Tensor:
        """Each token's place in its dialogue, [T] int64."""
        return torch.cat([torch.arange(length) for length in self.lengths])

    def only(self, chosen: Sequence[int]) -> Batch:
        """The chosen dialogues alone."""
        ids, targets = (torch.split(part, list(self.lengths)) for part in (self.ids, self.targets))
        lengths = tuple(self.lengths[number] for number in chosen)
        return Batch(torch.cat([ids[n] for n in chosen]), torch.cat([targets[n] for n in chosen]), lengths)


@dataclass(frozen=True)
class Shape:
    """Tokens of a batch, the longest dialogue that it takes, and the kinds that fill it."""

    tokens: int
    longest: int
    mixture: dict[str, float]


SHORT = Shape(2304, 384, MIXTURE)
LONG = Shape(2304, 768, LONG_MIXTURE)


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
    """A batch of new training dialogues; one that is too long, or has no room left, is passed over."""
    found: list[Encoded] = []
    room = shape.tokens
    misfits = 0
    pieces = token_pieces(tokenizer)
    while misfits < MISFITS_TO_CLOSE:
        dialogue = draw_mixed(source, Split.TRAIN, shape.mixture, reach, pieces)
        encoded = encode(tokenizer, dialogue)
        if len(encoded.ids) > min(room, shape.longest):
            misfits += 1
            continue
        misfits = 0
        found.append(encoded)
        room -= len(encoded.ids)
    return join(found)


def join(dialogues: Sequence[Encoded]) -> Batch:
    """The dialogues as one row of tensors."""
    ids = torch.tensor([token for dialogue in dialogues for token in dialogue.ids])
    learnt = torch.tensor([flag for dialogue in dialogues for flag in dialogue.learnt])
    targets = torch.full_like(ids, NOT_LEARNT)
    targets[:-1] = torch.where(learnt[1:], ids[1:], NOT_LEARNT)     # a dialogue's first token is never learnt
    return Batch(ids, targets, tuple(len(dialogue.ids) for dialogue in dialogues))
