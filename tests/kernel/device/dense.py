"""The dense reference of attention: every token's keys and values at hand, and a matrix of who sees whom."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import torch

from cadenza.kernel.device.torch_device import TorchDevice
from cadenza.kernel.model.config import ModelConfig
from cadenza.kernel.model.decoder import Decoder, Sight
from cadenza.kernel.model.operations import TorchOperations
from cadenza.kernel.model.rope_config import RopeConfig
from cadenza.kernel.model.weights import RandomWeights
from cadenza.kernel.native.library_unsafe import Kernels

CONFIG = ModelConfig(
    family="qwen3", layers=2, hidden=32, intermediate=48, heads=4, kv_heads=2, head_dim=16, vocabulary_size=64,
    context_tokens=4096, norm_epsilon=1e-6, rope=RopeConfig(theta=100.0), tied_embeddings=False, qk_norm=True,
)
# All that families add to attention, at once.
PARTICULAR = replace(
    CONFIG, windows=(0, 6), window_rope=RopeConfig(theta=50.0), attention_cap=2.0, sinks=True, query_scale=1.2,
    rope=RopeConfig(theta=100.0, rotated=0.5, scale=1.3),
)
SEED = 3


def small_device(
    pages: int = 128, page_tokens: int = 4, config: ModelConfig = CONFIG, kernels: Kernels | None = None
) -> TorchDevice:
    """With the reference's weights."""
    return TorchDevice.random(config, pages=pages, page_tokens=page_tokens, threads=1, seed=SEED, kernels=kernels)


class DenseAttention:
    """softmax(q · kᵀ / √D) · v in float64, over what is seen; zeros for a token that sees nothing."""

    def __init__(self, seen: np.ndarray, positions: torch.Tensor, sights: list[Sight]) -> None:
        self._seen, self._positions, self._sights = torch.from_numpy(seen), positions, sights

    def __call__(self, layer: int, queries: torch.Tensor, keys: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
        sight, group = self._sights[layer], queries.shape[1] // keys.shape[1]
        keys, values = (x.repeat_interleave(group, 1).double() for x in (keys, values))
        scores = torch.einsum("ihd,jhd->hij", queries.double(), keys) / queries.shape[2] ** 0.5
        if sight.cap:
            scores = sight.cap * torch.tanh(scores / sight.cap)
        scores = scores.masked_fill(~self._seen_in(sight.window), -torch.inf)
        if sight.sinks is not None:
            sinks = sight.sinks.double()[:, None, None].expand(-1, len(queries), 1)
            scores = torch.cat((scores, sinks), 2)
        weights = scores.softmax(-1).nan_to_num(0.0)[:, :, : len(keys)]
        return torch.einsum("hij,jhd->ihd", weights, values).reshape(len(queries), -1).float()

    def _seen_in(self, window: int) -> torch.Tensor:
        apart = self._positions[:, None] - self._positions
        return self._seen & (apart < window) if window else self._seen


@cache
def _decoder(config: ModelConfig) -> Decoder:
    return Decoder(config, RandomWeights(config, torch.float32, SEED), TorchOperations("float32"))


def dense_logits(
    tokens: list[int], positions: list[int] | None = None, seen: np.ndarray | None = None, config: ModelConfig = CONFIG
) -> np.ndarray:
    """[T, V]. By default positions count up, and a token sees itself and all before it."""
    with torch.inference_mode():
        return _decoder(config).logits(_hidden(tokens, positions, seen, config)).numpy()


def dense_states(tokens: list[int], config: ModelConfig = CONFIG) -> np.ndarray:
    """[T, hidden], normed."""
    with torch.inference_mode():
        return _decoder(config).normed(_hidden(tokens, None, None, config)).numpy()


def _hidden(
    tokens: list[int], positions: list[int] | None, seen: np.ndarray | None, config: ModelConfig
) -> torch.Tensor:
    count, decoder = len(tokens), _decoder(config)
    seen = np.tril(np.ones((count, count), np.bool_)) if seen is None else seen
    places = torch.tensor(list(range(count)) if positions is None else positions)
    return decoder.forward(torch.tensor(tokens), places, DenseAttention(seen, places, decoder.sights))
