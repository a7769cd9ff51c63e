"""The decoder of Llama 3, Qwen 2 and Qwen 3 (Touvron et al. 2023; Qwen2 and Qwen3 technical reports).

    x = embedding[tokens]
    each layer:  x += output · attention(rotate(q), rotate(k), v)      of  norm(x)
                 x += down · (silu(gate · h) ⊙ (up · h))               of  h = norm(x)
    logits = head · norm(x)

Keys and values are not kept here: attention is a seam. T tokens, H heads, K kv heads, D head dim, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional

from cadenza.kernel.model.config import ModelConfig
from cadenza.kernel.model.linear import Linear, linear, stacked_linear
from cadenza.kernel.model.low_rank import Adapters
from cadenza.kernel.model.rope import Rotation, frequencies, rotate, rotation
from cadenza.kernel.model.tensors import EMBEDDING, HEAD

Weights = Mapping[str, Tensor]


class Attention(Protocol):
    """Stores one layer's new keys and values, then answers what each query reads."""

    def __call__(self, layer: int, queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        """`queries` [T, H, D], `keys` and `values` [T, K, D], rotated; → [T, H · D]."""


class Decoder:
    """Computes in `dtype`. Reads each weight once, in order, whatever its type; keeps what it made of them."""

    def __init__(self, config: ModelConfig, weights: Weights, dtype: torch.dtype) -> None:
        self.config, self.dtype = config, dtype
        self._embedding = weights[EMBEDDING].to(dtype)                              # [V, hidden]
        self.adapters = Adapters()
        self._layers = [Layer(config, number, weights, dtype, self.adapters) for number in range(config.layers)]
        self._norm = Norm(weights["model.norm.weight"].to(dtype), config.norm_epsilon)
        head = linear(self._embedding if config.tied_embeddings else weights[HEAD].to(dtype))
        self._head = self.adapters.over(head, {HEAD.removesuffix(".weight"): config.vocabulary_size})
        self.frequencies = frequencies(config.rope, config.head_dim)

    def forward(self, tokens: Tensor, positions: Tensor, attention: Attention) -> Tensor:
        """`tokens` and `positions`: integers [T]. Answers the hidden states before the last norm, [T, hidden]."""
        turned = rotation(self.frequencies, positions, self.dtype)
        x = functional.embedding(tokens, self._embedding)
        for layer in self._layers:
            x = layer.forward(x, turned, attention)
        return x

    def logits(self, hidden: Tensor) -> Tensor:
        """float32 [N, V] of hidden states [N, hidden]."""
        return self._head(self._norm(hidden)).float()


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
        self._number = number
        self._heads, self._kv_heads, self._head_dim = c.heads, c.kv_heads, c.head_dim
        self._attention_norm = Norm(get("input_layernorm.weight"), c.norm_epsilon)
        self._qkv = mapped([f"self_attn.{x}_proj" for x in "qkv"], c.qkv_bias)
        self._head_norm = self._make_head_norm(c, get) if c.qk_norm else None
        self._output = mapped(["self_attn.o_proj"], c.output_bias)
        self._mlp_norm = Norm(get("post_attention_layernorm.weight"), c.norm_epsilon)
        self._gate_up = mapped(["mlp.gate_proj", "mlp.up_proj"], c.mlp_bias)
        self._down = mapped(["mlp.down_proj"], c.mlp_bias)

    @staticmethod
    def _make_head_norm(c: ModelConfig, get: Callable[[str], Tensor]) -> Norm:
        """One norm over all query and key heads: weight [H + K, D]."""
        query, key = get("self_attn.q_norm.weight"), get("self_attn.k_norm.weight")
        return Norm(torch.cat((query.expand(c.heads, -1), key.expand(c.kv_heads, -1))), c.norm_epsilon)

    def forward(self, x: Tensor, turned: Rotation, attention: Attention) -> Tensor:
        """x [T, hidden] → [T, hidden]."""
        x = x + self._attend(self._attention_norm(x), turned, attention)
        return x + self._feed_forward(self._mlp_norm(x))

    def _attend(self, h: Tensor, turned: Rotation, attention: Attention) -> Tensor:
        heads = self._qkv(h).view(-1, self._heads + 2 * self._kv_heads, self._head_dim)
        turning, values = heads[:, : -self._kv_heads], heads[:, -self._kv_heads :]
        if self._head_norm is not None:
            turning = self._head_norm(turning)
        rotated = rotate(turning, turned)
        return self._output(attention(self._number, rotated[:, : self._heads], rotated[:, self._heads :], values))

    def _feed_forward(self, h: Tensor) -> Tensor:
        gate, up = self._gate_up(h).chunk(2, dim=-1)                                # [T, intermediate] each
        return self._down(functional.silu(gate) * up)


class Norm:
    """x / √(mean(x²) + ε) · weight over the last axis, the division in float32 (Zhang & Sennrich 2019)."""

    def __init__(self, weight: Tensor, epsilon: float) -> None:
        self._weight, self._epsilon, self._width = weight, epsilon, (weight.shape[-1],)

    def __call__(self, x: Tensor) -> Tensor:
        return functional.rms_norm(x, self._width, None, self._epsilon) * self._weight
