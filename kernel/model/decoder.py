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
from cadenza.kernel.model.linear import Linear
from cadenza.kernel.model.low_rank import Adapters
from cadenza.kernel.model.operations import HeadNorm, Norm, Operations, TorchNorm, Unnormed, WholeNorm
from cadenza.kernel.model.rope import Angles, Rotation, frequencies
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


class Begun(NamedTuple):
    """What the layers start from: embedded tokens [T, hidden], and angles, those of layers with a window apart."""

    x: Tensor
    turned: Rotation
    in_window: Rotation


class Decoder:
    """Computes by `operations`. Reads each weight once, in order, whatever its type; keeps what was made of them."""

    def __init__(self, config: ModelConfig, weights: Weights, operations: Operations) -> None:
        self.config, self.dtype = config, operations.dtype
        self._embedding = weights[EMBEDDING].to(operations.held)                    # [V, hidden]
        self._embedding_scale = torch.tensor(config.embedding_scale).to(self.dtype)
        self.adapters = Adapters()
        self._layers = [Layer(config, number, weights, operations, self.adapters) for number in range(config.layers)]
        self._norm = operations.norm(weights["model.norm.weight"].float() + config.norm_offset, config.norm_epsilon)
        head = operations.linear(self._embedding if config.tied_embeddings else weights[HEAD].to(operations.held))
        self._head = self.adapters.over(head, {HEAD.removesuffix(".weight"): config.vocabulary_size})
        self.frequencies = frequencies(config.rope, config.head_dim)
        self._window_frequencies = frequencies(config.window_rope or config.rope, config.head_dim)
        self._turned = Angles(self.frequencies, self.dtype, config.rope.scale)
        self._in_window = None if config.window_rope is None else Angles(self._window_frequencies, self.dtype,
                                                                         config.window_rope.scale)
        self.sights = [self._sight(number, layer.sinks) for number, layer in enumerate(self._layers)]

    def forward(self, tokens: Tensor, positions: Tensor, attention: Attention) -> Tensor:
        """`tokens` and `positions`: integers [T]. Answers the hidden states before the last norm, [T, hidden]."""
        x, added = self.through(self.begun(tokens, positions), attention)
        return x + added

    def begun(self, tokens: Tensor, positions: Tensor) -> Begun:
        """As of `forward`, up to the layers."""
        turned = self._turned(positions)
        in_window = turned if self._in_window is None else self._in_window(positions)
        x = functional.embedding(tokens, self._embedding).to(self.dtype)
        return Begun(x * self._embedding_scale if self.config.embedding_scale != 1 else x, turned, in_window)

    def through(self, begun: Begun, attention: Attention) -> tuple[Tensor, Tensor]:
        """All layers; the sum of the two is what comes out. `begun.x` is given up."""
        x, added = begun.x, None
        for layer, sight in zip(self._layers, self.sights, strict=True):
            x, added = layer.forward(x, added, begun.in_window if sight.window else begun.turned, attention)
        assert added is not None, "a decoder has layers"
        return x, added

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
        self, config: ModelConfig, number: int, weights: Weights, operations: Operations, adapters: Adapters
    ) -> None:
        prefix = f"model.layers.{number}."

        def get(name: str) -> Tensor:
            return weights[prefix + name].to(operations.held)

        def mapped(names: Sequence[str], biased: bool) -> Linear:
            matrices = [get(f"{name}.weight") for name in names]
            bias = torch.cat([get(f"{name}.bias") for name in names]) if biased else None
            stacked = operations.linear(torch.cat(matrices), bias)
            return adapters.over(stacked, {prefix + name: len(m) for name, m in zip(names, matrices, strict=True)})

        def norm(place: str) -> Norm:
            if place not in names:
                return Unnormed()
            return operations.norm(get(f"{names[place]}.weight").float() + c.norm_offset, c.norm_epsilon)

        c, names = config, norm_names(config)
        self._number, self._heads = number, (c.heads + 2 * c.kv_heads, c.head_dim)
        self._attention_norm, self._attention_output_norm = norm("attention"), norm("attention output")
        self._mlp_norm, self._mlp_output_norm = norm("mlp"), norm("mlp output")
        self._qkv = mapped(["self_attn.qkv_proj"] if c.fused else [f"self_attn.{x}_proj" for x in "qkv"], c.qkv_bias)
        self._turn = operations.turn(c.heads, c.kv_heads, _head_norm(c, get) if c.qk_norm else None, c.query_scale)
        self.sinks = get("self_attn.sinks").float() if c.sinks else None            # [H]
        self._output = mapped(["self_attn.o_proj"], c.output_bias)
        self._feed_forward = feed_forward(c, number, get, mapped, operations)

    def forward(
        self, x: Tensor, added: Tensor | None, turned: Rotation, attention: Attention
    ) -> tuple[Tensor, Tensor]:
        """x + added is what went in [T, hidden], and what comes out: a sum and the norm of it are one operation."""
        x, h = self._attention_norm.after(x, added)
        x, h = self._mlp_norm.after(x, self._attention_output_norm(self._attend(h, turned, attention)))
        return x, self._mlp_output_norm(self._feed_forward(h))

    def _attend(self, h: Tensor, turned: Rotation, attention: Attention) -> Tensor:
        queries, keys, values = self._turn(self._qkv(h).view(-1, *self._heads), turned)
        return self._output(attention(self._number, queries, keys, values))


def _head_norm(c: ModelConfig, get: Get) -> HeadNorm:
    """Of each head, it is one norm of all of them: weight [H + K, D]."""
    query, key = (get(f"self_attn.{name}_norm.weight") + c.norm_offset for name in "qk")
    if c.whole_qk_norm:
        return WholeNorm(TorchNorm(query, c.norm_epsilon), TorchNorm(key, c.norm_epsilon), c.heads)
    return TorchNorm(torch.cat((query.expand(c.heads, -1), key.expand(c.kv_heads, -1))), c.norm_epsilon)
