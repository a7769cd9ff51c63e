"""What a model is made of, read from an unmodified Hugging Face `config.json`: no torch. See families.py."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from cadenza.kernel.model.experts_config import ExpertsConfig
from cadenza.kernel.model.families import FAMILIES, Facts, Family, unknown_fields
from cadenza.kernel.model.rope_config import RopeConfig, rotated_width
from cadenza.kernel.model.settings import Settings, read_json
from cadenza.kvfs.errors import Invalid, Unsupported

ACTIVATIONS = {"silu": "silu", "swish": "silu", "gelu_pytorch_tanh": "gelu_tanh"}
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
    qk_norm: bool = False               # of each head, or, with the next, over all heads at once
    whole_qk_norm: bool = False
    dtype: str = "float32"              # in which the weights were saved
    activation: str = "silu"            # one of the values of ACTIVATIONS
    windows: tuple[int, ...] = ()       # of each layer: how many positions it reads up to its own; 0, or (): all
    window_rope: RopeConfig | None = None   # of layers with a window, where it is another
    norm_before: bool = True            # attention and MLP
    norm_after: bool = False            # what they answer, before it is added
    norm_offset: float = 0.0            # added to the weights of norms
    embedding_scale: float = 1.0
    query_scale: float = 1.0            # of queries, beside 1/√(head dim)
    attention_cap: float = 0.0          # scores are cap · tanh(score / cap); 0 is no cap
    logit_cap: float = 0.0
    sinks: bool = False                 # a score of each head's that is in the sum of weights, and reads nothing
    fused: bool = False                 # q, k, v are stored as one map, and gate and up
    experts: ExpertsConfig | None = None

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
        name_of_family, family = _family(settings)
        _refuse_unknown(settings, family)
        hidden, heads = settings.whole("hidden_size"), settings.whole("num_attention_heads")
        facts: Facts = {
            "family": name_of_family,
            "layers": settings.whole("num_hidden_layers"),
            "hidden": hidden,
            "intermediate": settings.whole("intermediate_size"),
            "heads": heads,
            "kv_heads": settings.whole("num_key_value_heads", heads),
            "head_dim": settings.whole("head_dim", max(hidden // heads, 1)),
            "vocabulary_size": settings.whole("vocab_size"),
            "norm_epsilon": settings.positive("rms_norm_eps", family.epsilon),
            "tied_embeddings": settings.flag("tie_word_embeddings", family.tied),
            "activation": _activation(settings, family),
            "dtype": _dtype(settings),
            **family.facts(settings),
        }
        rope = facts.get("rope") or RopeConfig.from_settings(settings)
        context = settings.whole("max_position_embeddings")
        if rope.kind == "longrope":
            context = min(context, rope.original_context_tokens)
        config = cls(**{**facts, "rope": rope, "context_tokens": context})
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

    def window(self, layer: int) -> int:
        """How many positions that layer reads, up to its own; 0 for all."""
        return self.windows[layer] if self.windows else 0

    def has_experts(self, layer: int) -> bool:
        return self.experts is not None and layer in self.experts.layers

    def _check(self, name: str) -> None:
        if self.heads % self.kv_heads:
            raise Invalid(
                f"{name}: num_key_value_heads {self.kv_heads} does not divide num_attention_heads {self.heads}",
                field="num_key_value_heads",
            )
        if self.head_dim % 2 or rotated_width(self.rope, self.head_dim) % 2:
            raise Invalid(f"{name}: head_dim is {self.head_dim}; rotary positions need an even one", field="head_dim")
        if self.rope.rotated != 1 and self.family != "phi3":
            raise Unsupported(f"{name}: partial_rotary_factor is not supported for {self.family}; whole heads rotate")
        if self.rope.pair_factors and len(self.rope.pair_factors) * 2 != rotated_width(self.rope, self.head_dim):
            raise Invalid(f"{name}: short_factor has {len(self.rope.pair_factors)} numbers; a head has "
                          f"{rotated_width(self.rope, self.head_dim) // 2} pairs", field="short_factor")
        if self.experts is not None and self.experts.chosen > self.experts.count:
            raise Invalid(f"{name}: num_experts_per_tok is {self.experts.chosen} of {self.experts.count} experts",
                          field="num_experts_per_tok")


def _family(settings: Settings) -> tuple[str, Family]:
    name = settings.text("model_type", "")
    architectures = {family.architecture for family in FAMILIES.values()}
    known = f"{settings.name}: this decoder knows {', '.join(sorted(architectures))}"
    family = FAMILIES.get(name)
    found = (settings.raw.get("architectures") or [family.architecture if family else name or "none"])[0]
    if family is None:
        raise Unsupported(f"{known}; the model is {found} (model_type {name or 'absent'!r})")
    if found != family.architecture:
        raise Unsupported(f"{known}; the model is {found}")
    return name, family


def _refuse_unknown(settings: Settings, family: Family) -> None:
    """What would change the numbers if it were passed over."""
    quantized = settings.raw.get("quantization_config")
    if quantized:
        method = str(quantized.get("quant_method", "")) if isinstance(quantized, Mapping) else ""
        way = "; load it with transformers and Mxfp4Config(dequantize=True) and save that" if method == "mxfp4" else ""
        fault = f"quantized weights (quantization_config {method}".rstrip() + f") are not supported{way}"
        raise Unsupported(f"{settings.name}: {fault}")
    unknown = unknown_fields(settings, family)
    if unknown:
        named = ", ".join(f"{name} ({settings.raw[name]!r})" for name in unknown[:4])
        raise Unsupported(f"{settings.name}: {named} of {family.architecture} may change what is computed, and is not "
                          "supported; if it changes nothing, set it to null")


def _activation(settings: Settings, family: Family) -> str:
    """Where a family has both names, the longer one counts."""
    named = settings.text("hidden_activation", settings.text("hidden_act", family.activation))
    if named not in ACTIVATIONS:
        known = ", ".join(ACTIVATIONS)
        raise Unsupported(f"{settings.name}: hidden_act {named!r} is not supported; {known} are")
    return ACTIVATIONS[named]


def _dtype(settings: Settings) -> str:
    saved = settings.text("dtype", settings.text("torch_dtype", "float32"))
    if saved not in DTYPES:
        raise Unsupported(f"{settings.name}: dtype {saved!r} is not supported; {', '.join(DTYPES)} are")
    return saved
