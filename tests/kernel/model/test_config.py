"""`config.json` in both spellings, and what is refused of it."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from cadenza.kernel.model.config import ModelConfig
from cadenza.kernel.model.experts_config import ExpertsConfig
from cadenza.kernel.model.families import FAMILIES
from cadenza.kernel.model.rope_config import RopeConfig
from cadenza.kvfs.errors import CadenzaError, Invalid, NotFound, Unsupported

from .tiny_models import LLAMA3_ROPE, NAMES, config_of

LLAMA = {
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 64, "intermediate_size": 96,
    "num_hidden_layers": 3, "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 257,
    "max_position_embeddings": 512, "rms_norm_eps": 1e-5, "rope_theta": 500000.0, "torch_dtype": "bfloat16",
}
QWEN2 = {**LLAMA, "architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2", "use_sliding_window": False}
QWEN3 = {**LLAMA, "architectures": ["Qwen3ForCausalLM"], "model_type": "qwen3", "head_dim": 32}

MISTRAL = {**LLAMA, "architectures": ["MistralForCausalLM"], "model_type": "mistral"}
GEMMA2 = {**LLAMA, "architectures": ["Gemma2ForCausalLM"], "model_type": "gemma2", "hidden_act": "gelu_pytorch_tanh"}
GEMMA3 = {**GEMMA2, "architectures": ["Gemma3ForCausalLM"], "model_type": "gemma3_text", "num_hidden_layers": 7}
PHI3 = {**LLAMA, "architectures": ["Phi3ForCausalLM"], "model_type": "phi3"}
GPT_OSS = {**LLAMA, "architectures": ["GptOssForCausalLM"], "model_type": "gpt_oss"}
KINDS = {"llama3-rope": "llama3", "qwen2-windows": "yarn", "gemma3": "linear", "phi3-longrope": "longrope",
         "gpt-oss": "yarn"}
WINDOWS = {"qwen2-windows": (0, 12), "mistral": (12, 12), "gemma2": (12, 0), "gemma3": (12, 0), "phi3": (12, 12),
           "gpt-oss": (12, 0)}


@pytest.mark.parametrize("name", NAMES)
def test_what_transformers_writes_is_read(name: str, tmp_path: Path) -> None:
    written = config_of(name)
    written.architectures = [FAMILIES[written.model_type].architecture]
    written.save_pretrained(tmp_path)
    read = ModelConfig.from_directory(tmp_path)
    assert (read.layers, read.hidden, read.heads, read.kv_heads) == (2, written.hidden_size, 4, 2)
    assert read.tied_embeddings == written.tie_word_embeddings
    assert read.head_dim == (getattr(written, "head_dim", None) or written.hidden_size // 4)
    assert read.qk_norm == (read.family in ("qwen3", "gemma3_text", "olmo2", "qwen3_moe"))
    assert read.rope.kind == KINDS.get(name, "default")
    assert read.windows == WINDOWS.get(name, ())


@pytest.mark.parametrize("raw", [LLAMA, QWEN2, QWEN3])
def test_old_and_new_spelling_of_rope_are_one(raw: dict[str, Any]) -> None:
    scaling = {key: value for key, value in LLAMA3_ROPE.items() if key != "rope_theta"}
    old = ModelConfig.from_mapping({**raw, "rope_scaling": scaling})
    older = ModelConfig.from_mapping({**raw, "rope_scaling": {**scaling, "type": "llama3"}})
    unspelled = {key: value for key, value in raw.items() if key != "rope_theta"}
    new = ModelConfig.from_mapping({**unspelled, "rope_parameters": LLAMA3_ROPE})
    assert old == older == new
    assert new.rope == RopeConfig(5e5, "llama3", 8.0, 1.0, 4.0, 64)
    assert old.canonical() == new.canonical()


def test_the_facts_of_each_family() -> None:
    llama, qwen2, qwen3 = (ModelConfig.from_mapping(raw) for raw in (LLAMA, QWEN2, QWEN3))
    assert [c.qkv_bias for c in (llama, qwen2, qwen3)] == [False, True, False]
    assert [c.output_bias for c in (llama, qwen2, qwen3)] == [False, False, False]
    assert [c.head_dim for c in (llama, qwen2, qwen3)] == [16, 16, 32]
    assert llama.dtype == "bfloat16"
    assert llama.kv_bytes_per_token("bfloat16") == 2 * 3 * 2 * 16 * 2
    assert llama.kv_bytes_per_token("float32") == 2 * 3 * 2 * 16 * 4
    biased = ModelConfig.from_mapping({**LLAMA, "attention_bias": True, "mlp_bias": True})
    assert (biased.qkv_bias, biased.output_bias, biased.mlp_bias) == (True, True, True)


@pytest.mark.parametrize(
    ("change", "kind", "named"),
    [
        ({"model_type": "gpt2", "architectures": ["GPT2LMHeadModel"]}, Unsupported, "GPT2LMHeadModel"),
        ({"architectures": ["LlamaForSequenceClassification"]}, Unsupported, "LlamaForSequenceClassification"),
        ({"model_type": None}, Unsupported, "LlamaForCausalLM"),
        ({"rope_scaling": {"type": "dynamic", "factor": 4.0}}, Unsupported, "dynamic"),
        ({"rope_parameters": {"rope_type": "longrope"}}, Invalid, "short_factor"),
        ({"rope_scaling": {"type": "linear", "factor": 2.0, "twist": 1}}, Unsupported, "twist is not known"),
        ({"rope_scaling": {"rope_type": "llama3", "factor": 8.0}}, Invalid, "low_freq_factor"),
        ({"rope_scaling": 8}, Invalid, "rope_scaling"),
        ({"partial_rotary_factor": 0.5}, Unsupported, "partial_rotary_factor"),
        ({"hidden_act": "gelu"}, Unsupported, "gelu"),
        ({"quantization_config": {"bits": 4}}, Unsupported, "quantization_config"),
        ({"use_sliding_window": True}, Unsupported, "sliding"),
        ({"layer_types": ["full_attention", "sliding_attention"]}, Unsupported, "sliding"),
        ({"layer_types": ["full_attention", "chunked_attention"]}, Unsupported, "chunked_attention"),
        ({"layer_types": ["full_attention"]}, Invalid, "1 layers of 3"),
        ({"sliding_window": 16}, Unsupported, r"sliding_window \(16\)"),
        ({"logit_scale": 0.06}, Unsupported, "logit_scale .*may change what is computed"),
        ({"torch_dtype": "float8"}, Unsupported, "float8"),
        ({"hidden_size": "64"}, Invalid, "hidden_size"),
        ({"num_hidden_layers": 0}, Invalid, "num_hidden_layers"),
        ({"vocab_size": None}, Invalid, "vocab_size"),
        ({"rms_norm_eps": float("nan")}, Invalid, "rms_norm_eps"),
        ({"tie_word_embeddings": 1}, Invalid, "tie_word_embeddings"),
        ({"num_key_value_heads": 3}, Invalid, "num_key_value_heads"),
        ({"head_dim": 7}, Invalid, "head_dim"),
    ],
)
def test_refusals_name_the_fault(change: dict[str, Any], kind: type[CadenzaError], named: str) -> None:
    with pytest.raises(kind, match=named) as caught:
        ModelConfig.from_mapping({**LLAMA, **change}, "here/config.json")
    assert "here/config.json" in caught.value.message


def test_what_the_first_directories_of_a_family_spell_otherwise() -> None:
    assert ModelConfig.from_mapping(MISTRAL).windows == (4096,) * 3
    assert ModelConfig.from_mapping({**MISTRAL, "sliding_window": None}).windows == ()
    gemma2 = ModelConfig.from_mapping({**GEMMA2, "sliding_window": 4096, "cache_implementation": "hybrid"})
    assert gemma2.windows == (4096, 0, 4096)
    assert (gemma2.attention_cap, gemma2.logit_cap, gemma2.tied_embeddings) == (50.0, 30.0, True)
    old = {"rope_theta": 1e6, "rope_local_base_freq": 1e4, "rope_scaling": {"rope_type": "linear", "factor": 8.0}}
    gemma3 = ModelConfig.from_mapping({**GEMMA3, **old, "sliding_window": 512, "sliding_window_pattern": 6})
    assert gemma3.windows == (512, 512, 512, 512, 512, 0, 512)
    assert (gemma3.rope, gemma3.window_rope) == (RopeConfig(1e6, "linear", 8.0), RopeConfig(1e4))


def test_the_experts_of_each_form() -> None:
    moe = {**LLAMA, "architectures": ["Qwen3MoeForCausalLM"], "model_type": "qwen3_moe", "num_experts": 8,
           "num_experts_per_tok": 2, "moe_intermediate_size": 24, "decoder_sparse_step": 2, "norm_topk_prob": True}
    plain, clamped = ModelConfig.from_mapping(moe), ModelConfig.from_mapping({**GPT_OSS, "num_local_experts": 4})
    assert [plain.has_experts(layer) for layer in range(3)] == [False, True, False]
    assert plain.experts == ExpertsConfig(8, 2, 24, renormalised=True, layers=(1,))
    assert clamped.experts == ExpertsConfig(4, 4, 96, renormalised=True, layers=(0, 1, 2), clamped=True)
    assert (clamped.windows, clamped.qkv_bias, clamped.sinks) == ((128, 0, 128), True, True)
    with pytest.raises(Invalid, match="num_experts_per_tok is 9 of 8 experts"):
        ModelConfig.from_mapping({**moe, "num_experts_per_tok": 9})


def test_longrope_serves_its_original_context() -> None:
    scaling = {"type": "su", "short_factor": [1.0] * 8, "long_factor": [2.0] * 8}
    read = ModelConfig.from_mapping({**PHI3, "rope_scaling": scaling, "original_max_position_embeddings": 128})
    assert read.context_tokens == 128
    assert read.rope.scale == pytest.approx((1 + math.log(4) / math.log(128)) ** 0.5)
    with pytest.raises(Invalid, match="short_factor has 7 numbers; a head has 8 pairs"):
        ModelConfig.from_mapping({**PHI3, "rope_scaling": {**scaling, "short_factor": [1.0] * 7}})


def test_packed_weights_of_gpt_oss_are_refused_with_a_way_out() -> None:
    with pytest.raises(Unsupported, match=r"mxfp4.*dequantize=True"):
        ModelConfig.from_mapping({**GPT_OSS, "quantization_config": {"quant_method": "mxfp4"}})


def test_a_bad_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match=r"config\.json"):
        ModelConfig.from_directory(tmp_path)
    for text in ("{", "[1]", '"x"'):
        (tmp_path / "config.json").write_text(text)
        with pytest.raises(Invalid, match=r"config\.json"):
            ModelConfig.from_directory(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(LLAMA))
    assert ModelConfig.from_directory(tmp_path).layers == 3
