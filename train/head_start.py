"""A head start: weights that can copy before they have learnt anything.

What every task here needs first is induction: find where the current token stood before, and look at what came
after it (Olsson et al., "In-context Learning and Induction Heads", 2022). Two layers suffice, and gradient descent
finds them late and suddenly. So two heads are written down instead, and training goes on from there:

    layer 0, head 0   attends one token back: the same constant query and key everywhere, the query turned one
                      position back, so that rotary attention peaks there. Writes Q P e(previous) beside e(current).
    layer 1, head 0   query P e(current), key Qᵀ (Q P e(previous)), in the slow rotations: attends to where the
                      previous token equals this one. Writes Pᵀ P e of what it finds; the tied output names it.

e is a token's embedding; P [head, hidden] and Q [hidden, head] are random and orthonormal. All else is random too.
"""

from __future__ import annotations

import torch
from torch import Tensor
from transformers import LlamaForCausalLM

CONSTANT = 1.0
"""The first number of every embedding, in units of the others' deviation times the square root of their count."""
BACK_STRENGTH = 24.0
"""The score, at its peak, of the head that attends one token back."""
MATCH_STRENGTH = 3.0
"""The factor on the query and on the key of the head that matches tokens."""
BACK_LOUDNESS, COPY_LOUDNESS = 2.0, 8.0
"""How much louder than a token's own embedding each of the two heads writes."""
FREQUENCIES = 6
"""How many of the fastest rotations tell one position from the next."""


def orthonormal(rows: int, columns: int) -> Tensor:
    """A random matrix [rows, columns] whose shorter side is orthonormal."""
    return torch.nn.init.orthogonal_(torch.empty(rows, columns))


def one_back(width: int, base: float, strength: float) -> tuple[Tensor, Tensor]:
    """A query and a key, [width] each, whose rotary score peaks at `strength` where the key is one position back.

    Rotation i turns the pair (i, i + width/2) by position · base^(-2i/width); scores are divided by √width.
    """
    query, key = torch.zeros(width), torch.zeros(width)
    size = (strength * width**0.5 / FREQUENCIES) ** 0.5
    for pair in range(FREQUENCIES):
        angle = torch.tensor(base ** (-2 * pair / width))
        query[pair], query[pair + width // 2] = size * torch.cos(angle), -size * torch.sin(angle)
        key[pair] = size
    return query, key


@torch.no_grad()
def give_head_start(model: LlamaForCausalLM) -> None:
    """Writes the two heads into the first head of layers 0 and 1, and the constant into the embeddings."""
    settings = model.config.to_dict()
    width, hidden = int(settings["head_dim"]), int(settings["hidden_size"])
    embedding = model.model.embed_tokens.weight  # [vocabulary, hidden]
    embedding[:, 0] = CONSTANT * embedding.std() * hidden**0.5
    scale = embedding.pow(2).mean().sqrt().item()
    constant = embedding[0, 0].item() / scale  # of the normed embedding
    back, match = model.model.layers[0].self_attn, model.model.layers[1].self_attn
    read, write = orthonormal(width, hidden), orthonormal(hidden, width)
    read[:, 0] = 0  # the constant says nothing about a token
    query, key = one_back(width, settings["rope_parameters"]["rope_theta"], BACK_STRENGTH)
    back.q_proj.weight[:width] = 0
    back.k_proj.weight[:width] = 0
    back.q_proj.weight[:width, 0] = query / constant
    back.k_proj.weight[:width, 0] = key / constant
    back.v_proj.weight[:width] = read
    back.o_proj.weight[:, :width] = write * scale * BACK_LOUDNESS
    slow = torch.arange(width) % (width // 2) >= width // 4  # rotations that hardly turn within a context
    match.q_proj.weight[:width] = MATCH_STRENGTH * slow[:, None] * read
    match.k_proj.weight[:width] = MATCH_STRENGTH * slow[:, None] * write.T
    match.v_proj.weight[:width] = read
    match.o_proj.weight[:, :width] = read.T * scale * COPY_LOUDNESS
