"""The dense reference of attention: every token's keys and values at hand, and a matrix of who sees whom."""

from __future__ import annotations

import numpy as np
import torch

from cadenza.kernel.device.torch_device import TorchDevice
from cadenza.kernel.model.config import ModelConfig
from cadenza.kernel.model.decoder import Decoder
from cadenza.kernel.model.rope_config import RopeConfig
from cadenza.kernel.model.weights import RandomWeights

CONFIG = ModelConfig(
    family="qwen3", layers=2, hidden=32, intermediate=48, heads=4, kv_heads=2, head_dim=16, vocabulary_size=64,
    context_tokens=4096, norm_epsilon=1e-6, rope=RopeConfig(theta=100.0), tied_embeddings=False, qk_norm=True,
)
SEED = 3


def small_device(pages: int = 128, page_tokens: int = 4) -> TorchDevice:
    """With the reference's weights."""
    return TorchDevice.random(CONFIG, pages=pages, page_tokens=page_tokens, threads=1, seed=SEED)


class DenseAttention:
    """softmax(q · kᵀ / √D) · v in float64, over what is seen; zeros for a token that sees nothing."""

    def __init__(self, seen: np.ndarray) -> None:
        self._seen = torch.from_numpy(seen)

    def __call__(self, layer: int, queries: torch.Tensor, keys: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
        group = queries.shape[1] // keys.shape[1]
        keys, values = (x.repeat_interleave(group, 1).double() for x in (keys, values))
        scores = torch.einsum("ihd,jhd->hij", queries.double(), keys) / queries.shape[2] ** 0.5
        weights = scores.masked_fill(~self._seen, -torch.inf).softmax(-1).nan_to_num(0.0)
        return torch.einsum("hij,jhd->ihd", weights, values).reshape(len(queries), -1).float()


_decoder = Decoder(CONFIG, RandomWeights(CONFIG, torch.float32, SEED), torch.float32)


def dense_logits(tokens: list[int], positions: list[int] | None = None, seen: np.ndarray | None = None) -> np.ndarray:
    """[T, V]. By default positions count up, and a token sees itself and all before it."""
    count = len(tokens)
    seen = np.tril(np.ones((count, count), np.bool_)) if seen is None else seen
    with torch.inference_mode():
        hidden = _decoder.forward(
            torch.tensor(tokens), torch.tensor(list(range(count)) if positions is None else positions),
            DenseAttention(seen),
        )
        return _decoder.logits(hidden).numpy()
