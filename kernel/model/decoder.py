"""The decoder of Llama 3, Qwen 2 and Qwen 3 (Touvron et al. 2023; Qwen2 and Qwen3 technical reports), and of those that
differ from it in facts: see families.py.

    x = embedding[tokens]
    each layer:  x += output · attention(rotate(q), rotate(k), v)      of  norm(x)
                 x += down · (silu(gate · h) ⊙ (up · h))               of  h = norm(x)
    logits = head · norm(x)

A norm may stand after attention and MLP as well, or instead; queries and keys may have one; logits a cap.
Keys and values are not kept here: attention is a seam. T tokens, H heads, K kv heads, D head dim, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol

import torch
from torch import Tensor
from torch.nn import functional

from cadenza.kernel.model.config import ModelConfig
from cadenza.kernel.model.feed_forward import Get, feed_forward
from cadenza.kernel.model.linear import Linear, linear, stacked_linear
from cadenza.kernel.model.low_rank import Adapters
from cadenza.kernel.model.rope import Rotation, frequencies, rotate, rotation
from cadenza.kernel.model.tensors import EMBEDDING, HEAD, norm_names

Weights = Mapping[str, Tensor]


class Attention(Protocol):
    """Stores one layer's new keys and values, then answers what each query reads."""

    def __call__(self, layer: int, queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        """`queries` [T, H, D], `keys` and `values` [T, K, D], rotated; → [T, H · D]."""


class Sight(NamedTuple):
    """How the queries of a layer read: what its attention has to know beside them.

    `window`: how many positions, up to its own; 0 for all. `frequencies`: those by which they are rotated, [· / 2].
    `cap`: scores are cap · tanh(score / cap); 0 for no cap. `sinks` [H]: a score of each head's that is in the sum of
    weights, and reads nothing.
    """

    window: int
    frequencies: Tensor
    cap: float
    sinks: Tensor | None


class Decoder:
    """Computes in `dtype`. Reads each weight once, in order, whatever its type; keeps what it made of them."""

    def __init__(self, config: ModelConfig, weights: Weights, dtype: torch.dtype) -> None:
        self.config, self.dtype = config, dtype
        self._embedding = weights[EMBEDDING].to(dtype)                              # [V, hidden]
        self._embedding_scale = torch.tensor(config.embedding_scale).to(dtype)
        self.adapters = Adapters()
        self._layers = [Layer(config, number, weights, dtype, self.adapters) for number in range(config.layers)]
        self._norm = Norm(weights["model.norm.weight"].to(dtype) + config.norm_offset, config.norm_epsilon)
        head = linear(self._embedding if config.tied_embeddings else weights[HEAD].to(dtype))
        self._head = self.adapters.over(head, {HEAD.removesuffix(".weight"): config.vocabulary_size})
        self.frequencies = frequencies(config.rope, config.head_dim)
        self._window_frequencies = frequencies(config.window_rope or config.rope, config.head_dim)
        self.sights = [self._sight(number, layer.sinks) for number, layer in enumerate(self._layers)]

    def forward(self, tokens: Tensor, positions: Tensor, attention: Attention) -> Tensor:
        """`tokens` and `positions`: integers [T]. Answers the hidden states before the last norm, [T, hidden]."""
        turned = rotation(self.frequencies, positions, self.dtype, self.config.rope.scale)
        local = self.config.window_rope
        turned_in_window = rotation(self._window_frequencies, positions, self.dtype, local.scale) if local else turned
        x = functional.embedding(tokens, self._embedding)
        if self.config.embedding_scale != 1:
            x = x * self._embedding_scale
        for layer, sight in zip(self._layers, self.sights, strict=True):
            x = layer.forward(x, turned_in_window if sight.window else turned, attention)
        return x

    def normed(self, hidden: Tensor) -> Tensor:
        """What the head sees of hidden states [N, hidden]."""
        return self._norm(hidden)

    def logits(self, hidden: Tensor) -> Tensor:
        """float32 [N, V] of hidden states [N, hidden]."""
        logits, cap = self._head(self._norm(hidden)).float(), self.config.logit_cap
        return cap * torch.tanh(logits / cap) if cap else logits

    def _sight(self, layer: int, sinks: Tensor | None) -> Sight:
        window = self.config.window(layer)
        return Sight(window, self._window_frequencies if window else self.frequencies, self.config.attention_cap, sinks)


class Layer:
    """One layer of the decoder."""

    def __init__(
        self, config: ModelConfig, number: int, weights: Weights, dtype: torch.dtype, adapters: Adapters
    ) -> None:
        prefix = f"model.layers.{number}."

        def get(name: str) -> Tensor:
            return weights[prefix + name].to(dtype)

        def bias(name: str, present: bool) -> Tensor | None:
            return get(f"{name}.bias") if present else None

        def mapped(names: Sequence[str], biased: bool) -> Linear:
            matrices = [get(f"{name}.weight") for name in names]
            stacked = stacked_linear(matrices, [bias(name, biased) for name in names])
            return adapters.over(stacked, {prefix + name: len(m) for name, m in zip(names, matrices, strict=True)})

        c = config
        self._number, self._query_scale = number, c.query_scale
        self._heads, self._kv_heads, self._head_dim = c.heads, c.kv_heads, c.head_dim
        norms = {place: Norm(get(f"{name}.weight") + c.norm_offset, c.norm_epsilon)
                 for place, name in norm_names(c).items()}  # fmt: skip
        self._attention_norm, self._attention_output_norm = norms.get("attention"), norms.get("attention output")
        self._mlp_norm, self._mlp_output_norm = norms.get("mlp"), norms.get("mlp output")
        self._qkv = mapped(["self_attn.qkv_proj"] if c.fused else [f"self_attn.{x}_proj" for x in "qkv"], c.qkv_bias)
        self._head_norm = _head_norm(c, get) if c.qk_norm else None
        self.sinks = get("self_attn.sinks").float() if c.sinks else None            # [H]
        self._output = mapped(["self_attn.o_proj"], c.output_bias)
        self._feed_forward = feed_forward(c, number, get, mapped)

    def forward(self, x: Tensor, turned: Rotation, attention: Attention) -> Tensor:
        """x [T, hidden] → [T, hidden]."""
        x = x + _normed(self._attention_output_norm, self._attend(_normed(self._attention_norm, x), turned, attention))
        return x + _normed(self._mlp_output_norm, self._feed_forward(_normed(self._mlp_norm, x)))

    def _attend(self, h: Tensor, turned: Rotation, attention: Attention) -> Tensor:
        heads = self._qkv(h).view(-1, self._heads + 2 * self._kv_heads, self._head_dim)
        turning, values = heads[:, : -self._kv_heads], heads[:, -self._kv_heads :]
        if self._head_norm is not None:
            turning = self._head_norm(turning)
        rotated = rotate(turning, turned)
        queries, keys = rotated[:, : self._heads], rotated[:, self._heads :]
        if self._query_scale != 1:
            queries = queries * self._query_scale
        return self._output(attention(self._number, queries, keys, values))


class Norm:
    """x / √(mean(x²) + ε) · weight over the last axis, the division in float32 (Zhang & Sennrich 2019)."""

    def __init__(self, weight: Tensor, epsilon: float) -> None:
        self._weight, self._epsilon, self._width = weight, epsilon, (weight.shape[-1],)

    def __call__(self, x: Tensor) -> Tensor:
        return functional.rms_norm(x, self._width, None, self._epsilon) * self._weight


class WholeNorm:
    """One norm over all query heads, and one over all key heads, of [T, H + K, D] (OLMo 2)."""

    def __init__(self, query: Norm, key: Norm, heads: int) -> None:
        self._query, self._key, self._heads = query, key, heads

    def __call__(self, x: Tensor) -> Tensor:
        query, key = x[:, : self._heads], x[:, self._heads :]
        normed = self._query(query.flatten(1)), self._key(key.flatten(1))
        return torch.cat(normed, 1).view(x.shape)


def _normed(norm: Norm | None, x: Tensor) -> Tensor:
    return x if norm is None else norm(x)


def _head_norm(c: ModelConfig, get: Get) -> Norm | WholeNorm:
    """Of each head, it is one norm of all of them: weight [H + K, D]."""
    query, key = (get(f"self_attn.{name}_norm.weight") + c.norm_offset for name in "qk")
    if c.whole_qk_norm:
        return WholeNorm(Norm(query, c.norm_epsilon), Norm(key, c.norm_epsilon), c.heads)
    return Norm(torch.cat((query.expand(c.heads, -1), key.expand(c.kv_heads, -1))), c.norm_epsilon)
