"""sampling.py over all samples of a step at once, in torch, where the logits are: the same definitions, the same
uniform numbers; sums are in another order, so a draw on the edge between two tokens may fall to the other.

Sums of weights are made in blocks, in float64, so that they do not depend on how a GPU shares them out.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from cadenza.kernel.device.batch import Batch, Int64
from cadenza.kernel.device.sampling import NUCLEUS_FIRST, SUM_BLOCK, uniforms


def sample(batch: Batch, logits: Tensor, rows: Int64) -> Tensor:
    """The batch's samples, int64 [N]. `logits` float32 [·, V] and `rows` [N]: which of them each sample draws from."""
    seen = _masked(batch, logits[torch.from_numpy(rows).to(logits.device)])
    ids = torch.arange(seen.shape[1], device=seen.device)
    tokens = torch.where(seen == seen.amax(1, keepdim=True), ids, seen.shape[1] - 1).amin(1)
    drawn = np.flatnonzero(batch.temperature)
    if len(drawn):
        where = torch.from_numpy(drawn).to(seen.device)
        tokens[where] = _drawn(batch, seen[where], drawn)
    return tokens


def unpacked(masks: Tensor, count: int) -> Tensor:
    """Packed bits, uint8 [M, ⌈count / 8⌉], as bool [M, count]: bit i of byte b is number 8b + i."""
    bits = masks[:, :, None] >> torch.arange(8, dtype=torch.uint8, device=masks.device)
    return (bits & 1).bool().flatten(1)[:, :count]


def _masked(batch: Batch, logits: Tensor) -> Tensor:
    """`logits` [N, V], −∞ where a sample's mask does not allow."""
    where = np.flatnonzero(batch.sample_masks >= 0)
    if not len(where):
        return logits
    allowed = unpacked(torch.from_numpy(batch.masks).to(logits.device), logits.shape[1])
    samples = torch.from_numpy(where).to(logits.device)
    masks = torch.from_numpy(batch.sample_masks[where].astype(np.int64)).to(logits.device)
    logits[samples] = logits[samples].masked_fill(~allowed[masks], -torch.inf)
    return logits


def _drawn(batch: Batch, logits: Tensor, samples: Int64) -> Tensor:
    """[n] of `logits` [n, V], which are those of `samples`."""
    numbers = torch.from_numpy(uniforms(batch.seeds, batch.draws)[samples]).to(logits.device)
    temperature = torch.from_numpy(batch.temperature[samples]).to(logits.device)[:, None]
    greatest = logits.amax(1, keepdim=True)
    least = _least_kept(batch, logits, samples, temperature, greatest)
    weights = torch.exp((logits - greatest) / temperature).masked_fill_(logits < least, 0.0)
    goals = numbers * weights.view(len(weights), -1).sum(1, dtype=torch.float64)
    reached = where_reached(weights, goals, past=True)
    # Rounding may go past the last that weighs anything.
    ids = torch.arange(weights.shape[1], device=weights.device)
    return torch.where((weights > 0) & (ids <= reached[:, None]), ids, 0).amax(1)


def _least_kept(batch: Batch, logits: Tensor, samples: Int64, temperature: Tensor, greatest: Tensor) -> Tensor:
    """[n, 1] the least logit that the filters keep."""
    vocabulary, device = logits.shape[1], logits.device
    least = torch.full_like(greatest, -torch.inf)
    top_k, top_p, min_p = batch.top_k[samples], batch.top_p[samples], batch.min_p[samples]
    counted = (top_k > 0) & (top_k < vocabulary)
    if counted.any():
        places = torch.from_numpy(np.where(counted, top_k, 1).astype(np.int64)).to(device)[:, None] - 1
        kth = logits.topk(int(top_k[counted].max())).values.gather(1, places)
        least = torch.where(torch.from_numpy(counted).to(device)[:, None], kth, least)
    if (top_p < 1).any():
        nucleus = _nucleus(logits, temperature, greatest, least, torch.from_numpy(top_p).to(device))
        least = torch.where(torch.from_numpy(top_p < 1).to(device)[:, None], nucleus, least)
    if (min_p > 0).any():
        floor = torch.log(torch.from_numpy(np.minimum(min_p, 1.0)).to(device))[:, None]     # −∞ where it is off
        least = torch.maximum(least, greatest + temperature * floor)
    return least


def _nucleus(logits: Tensor, temperature: Tensor, greatest: Tensor, least: Tensor, top_p: Tensor) -> Tensor:
    """[n, 1] the least of the fewest most likely logits that reach `top_p` of those that are at least `least`."""
    weights = torch.exp((logits - greatest) / temperature).masked_fill_(logits < least, 0.0)
    goals = top_p.double().clamp(max=1.0) * weights.sum(1, dtype=torch.float64)
    for count in (NUCLEUS_FIRST, logits.shape[1]):
        falling = logits.topk(min(count, logits.shape[1])).values
        weights = torch.exp((falling - greatest) / temperature).masked_fill_(falling < least, 0.0)
        if count >= logits.shape[1] or bool(((weights.sum(1, dtype=torch.float64) >= goals) | (top_p >= 1)).all()):
            break
    return falling.gather(1, where_reached(weights, goals, past=False)[:, None])


def where_reached(weights: Tensor, goals: Tensor, past: bool) -> Tensor:
    """The first place up to which `weights` float32 [n, V] sum to `goals` float64 [n], or `past` them; the last if none
    does. int64 [n]."""
    count, width = weights.shape
    blocks = torch.nn.functional.pad(weights, (0, -width % SUM_BLOCK)).view(count, -1, SUM_BLOCK)
    ends = blocks.sum(2, dtype=torch.float64).cumsum(1)
    block = torch.searchsorted(ends, goals[:, None], right=past).clamp_(max=ends.shape[1] - 1)
    before = ends.gather(1, (block - 1).clamp_(min=0)).masked_fill(block == 0, 0.0)
    inside = blocks.gather(1, block[:, :, None].expand(-1, -1, SUM_BLOCK))[:, 0].double().cumsum(1)
    place = torch.searchsorted(inside + before, goals[:, None], right=past).clamp_(max=SUM_BLOCK - 1)
    return (block * SUM_BLOCK + place)[:, 0].clamp_(max=width - 1)
