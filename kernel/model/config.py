"""What a model is made of, read from an unmodified Hugging Face `config.json`: no torch.

Three families are known. They differ in four facts, and the decoder sees the facts, not the names:

    family   q/k/v bias         o bias             q/k norm   MLP bias
    llama    attention_bias     attention_bias     no         mlp_bias
    qwen2    yes                no                 no         no
    qwen3    attention_bias     attention_bias     yes        no
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from cadenza.kernel.model.rope_config import RopeConfig
from cadenza.kernel.model.settings import Settings, read_json
from cadenza.kvfs.errors import Invalid, Unsupported

ARCHITECTURES = {"llama": "LlamaForCausalLM", "qwen2": "Qwen2ForCausalLM", "qwen3": "Qwen3ForCausalLM"}
DTYPES = ("float32", "bfloat16", "float16")


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """One decoder's shape. Widths are in values, `context_tokens` in tokens."""

    family: str
    layers: int
    hidden: int
    intermediate: int
    heads: int
    kv_heads: int
    head_dim: int
    vocabulary_size: int
    context_tokens: int
    norm_epsilon: float
    rope: RopeConfig
    tied_embeddings: bool
    qkv_bias: bool = False
    output_bias: bool = False
    mlp_bias: bool = False
    qk_norm: bool = False
    dtype: str = "float32"    # in which the weights were saved

    @classmethod
    def from_directory(cls, directory: Path) -> ModelConfig:
        """Reads `config.json`.

        Raises NotFound when it is absent, Invalid when it is malformed (naming the field), Unsupported when it asks
        for something that this decoder does not compute (naming it).
        """
        return cls.from_mapping(read_json(directory / "config.json"), str(directory / "config.json"))

    @classmethod
    def from_mapping(cls, raw: Mapping[str, Any], name: str = "config.json") -> ModelConfig:
        """The same from what `config.json` holds; `name` is how errors call it."""
        settings = Settings(raw, name)
        family = _family(settings)
        _refuse_unknown_features(settings)
        hidden, heads = settings.whole("hidden_size"), settings.whole("num_attention_heads")
        head_dim = settings.whole("head_dim", max(hidden // heads, 1))
        bias = family == "qwen2" or settings.flag("attention_bias", False)
        config = cls(
            family=family,
            layers=settings.whole("num_hidden_layers"),
            hidden=hidden,
            intermediate=settings.whole("intermediate_size"),
            heads=heads,
            kv_heads=settings.whole("num_key_value_heads", heads),
            head_dim=head_dim,
            vocabulary_size=settings.whole("vocab_size"),
            context_tokens=settings.whole("max_position_embeddings"),
            norm_epsilon=settings.positive("rms_norm_eps", 1e-6),
            rope=RopeConfig.from_settings(settings),
            tied_embeddings=settings.flag("tie_word_embeddings", False),
            qkv_bias=bias,
            output_bias=bias and family != "qwen2",
            mlp_bias=family == "llama" and settings.flag("mlp_bias", False),
            qk_norm=family == "qwen3",
            dtype=_dtype(settings),
        )
        config._check(name)
        return config

    @property
    def queries_per_kv_head(self) -> int:
        return self.heads // self.kv_heads

    def kv_bytes_per_token(self, dtype: str) -> int:
        """K and V of all layers, in bytes, when they are held as `dtype`."""
        return 2 * self.layers * self.kv_heads * self.head_dim * (4 if dtype == "float32" else 2)

    def canonical(self) -> str:
        """The same text for the same computation, however `config.json` spelled it."""
        return json.dumps(asdict(self), sort_keys=True)

    def _check(self, name: str) -> None:
        if self.heads % self.kv_heads:
            raise Invalid(
                f"{name}: num_key_value_heads {self.kv_heads} does not divide num_attention_heads {self.heads}",
                field="num_key_value_heads",
            )
        if self.head_dim % 2:
            raise Invalid(f"{name}: head_dim is {self.head_dim}; rotary positions need an even one", field="head_dim")


def _family(settings: Settings) -> str:
    family = settings.text("model_type", "")
    architectures = settings.raw.get("architectures") or [ARCHITECTURES.get(family, family or "none")]
    known = f"{settings.name}: this decoder knows {', '.join(ARCHITECTURES.values())}"
    if family not in ARCHITECTURES:
        raise Unsupported(f"{known}; the model is {architectures[0]} (model_type {family or 'absent'!r})")
    if architectures[0] != ARCHITECTURES[family]:
        raise Unsupported(f"{known}; the model is {architectures[0]}")
    return family


def _refuse_unknown_features(settings: Settings) -> None:
    """What would change the numbers if it were passed over."""
    activation = settings.text("hidden_act", "silu")
    if activation not in ("silu", "swish"):
        raise Unsupported(f"{settings.name}: hidden_act {activation!r} is not supported; silu is")
    if settings.raw.get("quantization_config"):
        raise Unsupported(f"{settings.name}: quantized weights (quantization_config) are not supported")
    layer_types = set(settings.raw.get("layer_types") or ["full_attention"])
    if layer_types != {"full_attention"} or settings.flag("use_sliding_window", False):
        raise Unsupported(f"{settings.name}: sliding-window attention is not supported; only full attention is")


def _dtype(settings: Settings) -> str:
    saved = settings.text("dtype", settings.text("torch_dtype", "float32"))
    if saved not in DTYPES:
        raise Unsupported(f"{settings.name}: dtype {saved!r} is not supported; {', '.join(DTYPES)} are")
    return saved
