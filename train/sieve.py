"""The sieve: of all dialogues that are drawn, only those are learnt in which there is most to learn.

Once most is learnt, a quarter of the dialogues has over nine tenths of the loss. Reading the others without gradients
costs a third of learning them (Loshchilov and Hutter, "Online Batch Selection", 2015).
"""

from __future__ import annotations

import torch
from torch.nn import functional
from transformers import LlamaForCausalLM

from train.data import NOT_LEARNT, Batch
from train.model import logits_at


@torch.no_grad()
def losses_of(model: LlamaForCausalLM, batch: Batch) -> torch.Tensor:
    """The cross-entropy of each dialogue in nats, summed over its learnt tokens, [dialogues]."""
    learnt = batch.targets != NOT_LEARNT
    logits, of_tokens = logits_at(model, batch, learnt), torch.zeros(len(batch.ids))
    of_tokens[learnt] = functional.cross_entropy(logits, batch.targets[learnt], reduction="none")
    return torch.stack([part.sum() for part in torch.split(of_tokens, list(batch.lengths))])


def sieved(losses: torch.Tensor, batch: Batch, tokens: int) -> Batch:
    """The dialogues of the greatest losses that fit into so many tokens, in the order in which they came."""
    kept: list[int] = []
    for number in losses.argsort(descending=True).tolist():
        if batch.lengths[number] <= tokens:
            kept.append(number)
            tokens -= batch.lengths[number]
    return batch.only(sorted(kept))
