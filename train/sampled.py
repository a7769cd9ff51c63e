"""How the model does on held-out dialogues while it trains, by kind; cheap, so that the curve of each can be seen.

A dialogue counts if the likeliest token is the right one at every place where the assistant speaks: what greedy
decoding gives, for turns and interruptions that stand where the teacher's do.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

import torch
from tokenizers import Tokenizer
from transformers import LlamaForCausalLM

from train.data import NOT_LEARNT, Batch, encode, join
from train.model import logits_at
from train.tasks import draw_dialogue
from train.tokenizer import token_pieces
from train.world import Split

SAMPLED = ("facts", "facts_absent", "friend", "sum", "single", "parallel", "multi_step", "interrupts")
REACH = 12
DIALOGUES = 24


def held_out_batch(tokenizer: Tokenizer, kind: str) -> Batch:
    """The same dialogues each time."""
    source, pieces = random.Random(f"sampled {kind}"), token_pieces(tokenizer)
    drawn = (draw_dialogue(kind, source, Split.HELD_OUT, REACH, pieces) for _ in range(DIALOGUES))
    return join([encode(tokenizer, dialogue) for dialogue in drawn])


class Sample:
    """The batches of all sampled kinds."""

    def __init__(self, tokenizer: Tokenizer, kinds: Sequence[str] = SAMPLED) -> None:
        self.batches = {kind: held_out_batch(tokenizer, kind) for kind in kinds}

    @torch.no_grad()
    def scores(self, model: LlamaForCausalLM) -> dict[str, float]:
        """The part of the dialogues of each kind that would be said exactly, from 0 to 1."""
        return {kind: exact_part(model, batch) for kind, batch in self.batches.items()}


def exact_part(model: LlamaForCausalLM, batch: Batch) -> float:
    learnt = batch.targets != NOT_LEARNT
    wrong = torch.zeros_like(learnt)
    wrong[learnt] = logits_at(model, batch, learnt).argmax(-1) != batch.targets[learnt]
    exact = [not part.any() for part in torch.split(wrong, list(batch.lengths))]
    return sum(exact) / len(exact)
