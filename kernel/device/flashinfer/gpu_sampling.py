"""sampling.py over all samples of a step at once, in torch, where the logits are: the same definitions, the same
uniform numbers; sums are in another order, so a draw on the edge between two tokens may fall to the other.

Sums of weights are made in blocks, in float64, so that they do not depend on how a GPU shares them out.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from cadenza.kernel.device.batch import Batch, Int32, Int64
from cadenza.kernel.device.flashinfer.reading import ragged
from cadenza.kernel.device.penalties import Histories, History
from cadenza.kernel.device.sampling import NUCLEUS_FIRST, SUM_BLOCK, uniforms


def sample(batch: Batch, logits: Tensor, rows: Int64, histories: Histories) -> Int32:
    """The batch's samples [N]. `logits` float32 [·, V] and `rows` [N]: which of them each sample draws from. Waits for
    the GPU; what lanes have said is kept on the host."""
    if not len(rows):
        return np.zeros(0, np.int32)
    penalised = [(n, history) for n in range(len(rows)) if (history := histories.of(batch, n)) is not None]
    seen = logits[torch.from_numpy(rows).to(logits.device)]
    _bias(batch, seen)
    _penalise(batch, seen, penalised)
    _mask(batch, seen)
    ids = torch.arange(seen.shape[1], device=seen.device)
    tokens = torch.where(seen == seen.amax(1, keepdim=True), ids, seen.shape[1] - 1).amin(1)
    drawn = np.flatnonzero(batch.temperature)
    if len(drawn):
        where = torch.from_numpy(drawn).to(seen.device)
        tokens[where] = _drawn(batch, seen[where], drawn)
    found: Int32 = tokens.cpu().numpy().astype(np.int32)
    for n, history in penalised:
        history.append(int(found[n]))
    return found


def unpacked(masks: Tensor, count: int) -> Tensor:
    """Packed bits, uint8 [M, ⌈count / 8⌉], as bool [M, count]: bit i of byte b is number 8b + i."""
    bits = masks[:, :, None] >> torch.arange(8, dtype=torch.uint8, device=masks.device)
    return (bits & 1).bool().flatten(1)[:, :count]


def _bias(batch: Batch, logits: Tensor) -> None:
    """Adds to `logits` [N, V] what samples have been given for tokens."""
    biased = np.flatnonzero(batch.sample_biases >= 0)
    if not len(biased):
        return
    which = batch.sample_biases[biased]
    firsts, counts = batch.bias_starts[which], np.diff(batch.bias_starts)[which]
    named = ragged(firsts, counts)
    place = _placed((np.repeat(biased, counts), batch.bias_tokens[named]), logits)
    logits[place] += torch.from_numpy(batch.bias_values[named]).to(logits.device)


def _penalise(batch: Batch, logits: Tensor, penalised: list[tuple[int, History]]) -> None:
    """As `History.penalise`, of all at once."""
    if not penalised:
        return
    said = [history.counts() for _, history in penalised]
    samples = np.repeat([n for n, _ in penalised], [len(ids) for ids, _ in said])
    place = _placed((samples, np.concatenate([ids for ids, _ in said])), logits)
    counts = torch.from_numpy(np.concatenate([counts for _, counts in said])).to(logits.device)
    repetition, frequency, presence = torch.from_numpy(batch.penalties[samples]).to(logits.device).unbind(1)
    values, there = logits[place], counts > 0
    repeated = torch.where(values > 0, values / repetition, values * repetition)
    logits[place] = torch.where(there & (repetition != 1), repeated, values) - frequency * counts - presence * there


def _placed(indices: tuple[Int64, Int32 | Int64], logits: Tensor) -> tuple[Tensor, Tensor]:
    """To index [N, V]; none of them twice."""
    rows, tokens = (torch.from_numpy(x.astype(np.int64)).to(logits.device) for x in indices)
    return rows, tokens


def _mask(batch: Batch, logits: Tensor) -> None:
    """−∞ where a sample's mask does not allow."""
    where = np.flatnonzero(batch.sample_masks >= 0)
    if not len(where):
        return
    allowed = unpacked(torch.from_numpy(batch.masks).to(logits.device), logits.shape[1])
    samples, masks = _placed((where, batch.sample_masks[where]), logits)
    logits[samples] = logits[samples].masked_fill(~allowed[masks], -torch.inf)


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
