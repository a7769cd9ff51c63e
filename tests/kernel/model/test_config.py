"""`config.json` in both spellings, and what is refused of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from cadenza.kernel.model.config import ModelConfig
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


@pytest.mark.parametrize("name", NAMES)
def test_what_transformers_writes_is_read(name: str, tmp_path: Path) -> None:
    written = config_of(name)
    written.architectures = [{"llama": "Llama", "qwen2": "Qwen2", "qwen3": "Qwen3"}[written.model_type] + "ForCausalLM"]
    written.save_pretrained(tmp_path)
    read = ModelConfig.from_directory(tmp_path)
    assert (read.layers, read.hidden, read.heads, read.kv_heads) == (2, 32, 4, 2)
    assert read.tied_embeddings == written.tie_word_embeddings
    assert read.head_dim == (getattr(written, "head_dim", None) or 8)
    assert read.qk_norm == (read.family == "qwen3")
    assert read.rope.kind == ("llama3" if name == "llama3-rope" else "default")


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
        ({"rope_scaling": {"type": "yarn", "factor": 4.0}}, Unsupported, "yarn"),
        ({"rope_parameters": {"rope_type": "longrope"}}, Unsupported, "longrope"),
        ({"rope_scaling": {"rope_type": "llama3", "factor": 8.0}}, Invalid, "low_freq_factor"),
        ({"rope_scaling": 8}, Invalid, "rope_scaling"),
        ({"partial_rotary_factor": 0.5}, Unsupported, "partial_rotary_factor"),
        ({"hidden_act": "gelu"}, Unsupported, "gelu"),
        ({"quantization_config": {"bits": 4}}, Unsupported, "quantization_config"),
        ({"use_sliding_window": True}, Unsupported, "sliding"),
        ({"layer_types": ["full_attention", "sliding_attention"]}, Unsupported, "sliding"),
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


def test_a_bad_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match=r"config\.json"):
        ModelConfig.from_directory(tmp_path)
    for text in ("{", "[1]", '"x"'):
        (tmp_path / "config.json").write_text(text)
        with pytest.raises(Invalid, match=r"config\.json"):
            ModelConfig.from_directory(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(LLAMA))
    assert ModelConfig.from_directory(tmp_path).layers == 3
