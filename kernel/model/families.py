"""The families of decoders, each as the facts in which it differs from Llama: no torch.

A function a family reads from `config.json` what its decoder must be told; the decoder sees the facts, not the names.
What a family does not read, and what might change its numbers, is refused by name (`unknown_fields`).

    family      bias          q/k norm    norms           window            besides
    llama       asked         no          before          no                MLP bias, if asked
    mistral     no            no          before          all layers        -
    qwen2       q, k, v       no          before          later, if asked   -
    qwen3       asked         each head   before          later, if asked   -
    gemma2      asked         no          before, after   every other       scaled embedding, tanh caps, 1 + weight
    gemma3      asked         each head   before, after   all but sixth     the same; a rotation of its own in windows
    phi3        no            no          before          all, if asked     fused maps, part of each head rotated
    olmo2       asked         all heads   after           no                -
    qwen3_moe   asked         each head   before          all, if asked     experts
    gpt_oss     asked (yes)   no          before          every other       experts of another form, sinks
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from cadenza.kernel.model.experts_config import ExpertsConfig
from cadenza.kernel.model.rope_config import RopeConfig
from cadenza.kernel.model.settings import Settings
from cadenza.kvfs.errors import Invalid, Unsupported

Facts = dict[str, Any]                   # of ModelConfig, by the names of its fields
FULL, SLIDING = "full_attention", "sliding_attention"

# Of any family: what is read, and what says nothing of the numbers that are computed.
READ = frozenset((
    "model_type", "architectures", "num_hidden_layers", "hidden_size", "intermediate_size", "num_attention_heads",
    "num_key_value_heads", "head_dim", "vocab_size", "max_position_embeddings", "rms_norm_eps", "tie_word_embeddings",
    "rope_theta", "rope_scaling", "rope_parameters", "partial_rotary_factor", "hidden_act", "hidden_activation",
    "dtype", "torch_dtype", "quantization_config", "layer_types",
))  # fmt: skip
IDLE = frozenset((
    "use_cache", "transformers_version", "auto_map", "attention_dropout", "hidden_dropout", "embd_pdrop", "resid_pdrop",
    "initializer_range", "pretraining_tp", "output_attentions", "output_hidden_states", "output_router_logits",
    "router_aux_loss_coef", "return_dict", "name_or_path", "cache_implementation", "is_decoder", "use_return_dict",
    "torchscript", "chunk_size_feed_forward", "is_encoder_decoder", "id2label", "label2id", "problem_type",
    "bos_token_id", "eos_token_id", "pad_token_id", "unk_token_id", "sep_token_id", "max_length", "min_length",
    "do_sample", "temperature", "top_k", "top_p", "num_beams", "task_specific_params", "tokenizer_class", "prefix",
    "finetuning_task", "max_sequence_length", "attn_implementation", "unsloth_fixed", "unsloth_version",
))  # fmt: skip


class Family(NamedTuple):
    """`fields`: those of `config.json` that `facts` reads beside READ. `activation` is what is taken if none is named;
    `tied` and `epsilon` likewise."""

    architecture: str
    facts: Callable[[Settings], Facts]
    fields: str = ""
    activation: str = "silu"
    epsilon: float = 1e-6
    tied: bool = False


def windows(settings: Settings, window: int | None, otherwise: Callable[[int], bool]) -> Facts:
    """The window of each layer, 0 for none, by `layer_types` or, without those, by `otherwise` (number → whether it has
    one). `window`: that of the layers with one; None if there are none."""
    layers = settings.whole("num_hidden_layers")
    types = settings.raw.get("layer_types") or [SLIDING if window and otherwise(n) else FULL for n in range(layers)]
    unknown = [kind for kind in types if kind not in (FULL, SLIDING)]
    if unknown:
        raise Unsupported(f"{settings.name}: layer_types has {unknown[0]!r}; {FULL} and {SLIDING} are supported")
    if window is None and SLIDING in types:
        raise Unsupported(f"{settings.name}: layer_types asks for {SLIDING}, and this model has no sliding_window")
    if len(types) != layers:
        raise Invalid(f"{settings.name}: layer_types names {len(types)} layers of {layers}", field="layer_types")
    return {"windows": tuple(window if kind == SLIDING else 0 for kind in types) if SLIDING in types else ()}


def _window(settings: Settings, otherwise: int | None) -> int | None:
    """`sliding_window`; null is none."""
    if "sliding_window" in settings.raw and settings.raw["sliding_window"] is None:
        return None
    return None if otherwise is None and "sliding_window" not in settings.raw else settings.whole("sliding_window",
                                                                                                  otherwise)


def _biased(settings: Settings, otherwise: bool = False) -> Facts:
    bias = settings.flag("attention_bias", otherwise)
    return {"qkv_bias": bias, "output_bias": bias}


def _llama(settings: Settings) -> Facts:
    return {**_biased(settings), "mlp_bias": settings.flag("mlp_bias", False),
            **windows(settings, None, lambda layer: False)}


def _mistral(settings: Settings) -> Facts:
    return windows(settings, _window(settings, 4096), lambda layer: True)


def _later_windows(settings: Settings) -> Facts:
    used, first = settings.flag("use_sliding_window", False), settings.raw.get("max_window_layers", 28)
    return windows(settings, settings.whole("sliding_window", 4096) if used else None, lambda layer: layer >= first)


def _qwen2(settings: Settings) -> Facts:
    return {"qkv_bias": True, **_later_windows(settings)}


def _qwen3(settings: Settings) -> Facts:
    return {**_biased(settings), "qk_norm": True, **_later_windows(settings)}


def _gemma(settings: Settings) -> Facts:
    """What both have in common. The scale of queries is in relation to the usual 1/√(head dim)."""
    head_dim = settings.whole("head_dim", 256)
    return {
        **_biased(settings), "norm_after": True, "norm_offset": 1.0, "head_dim": head_dim,
        "embedding_scale": settings.whole("hidden_size") ** 0.5,
        "query_scale": (head_dim / settings.positive("query_pre_attn_scalar", 256)) ** 0.5,
    }  # fmt: skip


def _cap(settings: Settings, field: str, otherwise: float) -> float:
    """0 is none, as null is."""
    if field in settings.raw and settings.raw[field] is None:
        return 0.0
    return settings.positive(field, otherwise) if otherwise or field in settings.raw else 0.0


def _gemma2(settings: Settings) -> Facts:
    return {
        **_gemma(settings), **windows(settings, _window(settings, 4096), lambda layer: layer % 2 == 0),
        "attention_cap": _cap(settings, "attn_logit_softcapping", 50.0),
        "logit_cap": _cap(settings, "final_logit_softcapping", 30.0),
    }  # fmt: skip


def _gemma3(settings: Settings) -> Facts:
    """The caps are in its configuration too, but its attention does not take the first."""
    pattern = settings.whole("sliding_window_pattern", 6)
    return {
        **_gemma(settings), "qk_norm": True, **_gemma3_ropes(settings),
        **windows(settings, _window(settings, 4096), lambda layer: (layer + 1) % pattern != 0),
        "logit_cap": _cap(settings, "final_logit_softcapping", 0.0),
    }  # fmt: skip


def _gemma3_ropes(settings: Settings) -> Facts:
    """transformers 5 writes an object for each of the two kinds of layers; before, scaling was of the full ones."""
    raw = settings.raw.get("rope_parameters")
    by_kind = raw if isinstance(raw, Mapping) and (FULL in raw or SLIDING in raw) else {
        FULL: {**(settings.raw.get("rope_scaling") or raw or {}), "rope_theta": settings.positive("rope_theta", 1e6)},
        SLIDING: {"rope_theta": settings.positive("rope_local_base_freq", 1e4)},
    }
    whole, local = (RopeConfig.from_object(settings, by_kind.get(kind) or {}, {"rope_theta": theta})
                    for kind, theta in ((FULL, 1e6), (SLIDING, 1e4)))
    return {"rope": whole, "window_rope": local}


def _phi3(settings: Settings) -> Facts:
    return {**windows(settings, _window(settings, None), lambda layer: True), "fused": True}


def _olmo2(settings: Settings) -> Facts:
    return {**_biased(settings), "qk_norm": True, "whole_qk_norm": True, "norm_before": False, "norm_after": True,
            **windows(settings, None, lambda layer: False)}


def _qwen3_moe(settings: Settings) -> Facts:
    """The sliding window, when asked for, is that of every layer."""
    used = settings.flag("use_sliding_window", False)
    window = windows(settings, settings.whole("sliding_window", 4096) if used else None, lambda layer: True)
    step, dense = settings.whole("decoder_sparse_step", 1), settings.raw.get("mlp_only_layers") or []
    layers = range(settings.whole("num_hidden_layers"))
    experts = ExpertsConfig(
        count=settings.whole("num_experts", settings.whole("num_local_experts", 128)),
        chosen=settings.whole("num_experts_per_tok", 8),
        intermediate=settings.whole("moe_intermediate_size", 768),
        renormalised=settings.flag("norm_topk_prob", False),
        layers=tuple(n for n in layers if n not in dense and (n + 1) % step == 0),
    )
    return {**_biased(settings), "qk_norm": True, **window, "experts": experts}


def _gpt_oss(settings: Settings) -> Facts:
    yarn = {"rope_type": "yarn", "factor": 32.0, "beta_fast": 32.0, "beta_slow": 1.0, "truncate": False,
            "original_max_position_embeddings": 4096}
    given = settings.raw.get("rope_parameters") or settings.raw.get("rope_scaling")
    experts = ExpertsConfig(
        count=settings.whole("num_local_experts", settings.whole("num_experts", 128)),
        chosen=settings.whole("num_experts_per_tok", settings.whole("experts_per_token", 4)),
        intermediate=settings.whole("intermediate_size"),
        renormalised=True,
        layers=tuple(range(settings.whole("num_hidden_layers"))),
        clamped=True,
        slope=settings.positive("swiglu_alpha", 1.702),
        bound=settings.positive("swiglu_limit", 7.0),
    )
    return {
        **_biased(settings, True), **windows(settings, _window(settings, 128), lambda layer: layer % 2 == 0),
        "rope": RopeConfig.from_settings(settings, {"rope_theta": 150_000.0, **({} if given else yarn)}),
        "head_dim": settings.whole("head_dim", 64), "sinks": True, "experts": experts,
    }  # fmt: skip


GEMMA_FIELDS = "attention_bias query_pre_attn_scalar sliding_window attn_logit_softcapping final_logit_softcapping"
FAMILIES = {
    "llama": Family("LlamaForCausalLM", _llama, "attention_bias mlp_bias"),
    "mistral": Family("MistralForCausalLM", _mistral, "sliding_window"),
    "qwen2": Family("Qwen2ForCausalLM", _qwen2, "use_sliding_window sliding_window max_window_layers"),
    "qwen3": Family("Qwen3ForCausalLM", _qwen3, "attention_bias use_sliding_window sliding_window max_window_layers"),
    "gemma2": Family("Gemma2ForCausalLM", _gemma2, f"{GEMMA_FIELDS} sliding_window_size", "gelu_pytorch_tanh",
                     tied=True),
    "gemma3_text": Family("Gemma3ForCausalLM", _gemma3, f"{GEMMA_FIELDS} rope_local_base_freq sliding_window_pattern",
                          "gelu_pytorch_tanh", tied=True),
    "phi3": Family("Phi3ForCausalLM", _phi3, "sliding_window original_max_position_embeddings full_attn_mod "
                   "interpolate_factor", epsilon=1e-5),
    "olmo2": Family("Olmo2ForCausalLM", _olmo2, "attention_bias", epsilon=1e-5),
    "qwen3_moe": Family("Qwen3MoeForCausalLM", _qwen3_moe, "attention_bias use_sliding_window sliding_window "
                        "num_experts num_local_experts num_experts_per_tok moe_intermediate_size norm_topk_prob "
                        "decoder_sparse_step mlp_only_layers max_window_layers"),
    "gpt_oss": Family("GptOssForCausalLM", _gpt_oss, "attention_bias sliding_window num_experts num_local_experts "
                      "num_experts_per_tok experts_per_token swiglu_alpha swiglu_limit initial_context_length",
                      epsilon=1e-5),
}  # fmt: skip


def unknown_fields(settings: Settings, family: Family) -> list[str]:
    """What `config.json` sets that nobody here reads and that is not known to be idle; null, false and empty set
    nothing."""
    known = READ | IDLE | set(family.fields.split())
    return [name for name, value in settings.raw.items()
            if name not in known and not name.startswith("_") and value not in (None, False, "", [], {})]
