"""The model that all engines compute with: its shape, where it lies, and the prompts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

# Qwen2.5-0.5B
SHAPE: dict[str, Any] = {
    "architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2", "hidden_size": 896, "num_hidden_layers": 24,
    "num_attention_heads": 14, "num_key_value_heads": 2, "intermediate_size": 4864, "vocab_size": 151_936,
    "max_position_embeddings": 32_768, "rms_norm_eps": 1e-6, "rope_theta": 1_000_000.0, "tie_word_embeddings": True,
    "torch_dtype": "bfloat16", "hidden_act": "silu", "bos_token_id": 151_643, "eos_token_id": 151_645,
}
LAYERS, CUT_LAYERS = 24, 4
CONTEXT = 512
AGREED_PROMPTS, AGREED_PROMPT_TOKENS, AGREED_TOKENS = 8, 24, 4


def shape(layers: int) -> dict[str, Any]:
    return {**SHAPE, "num_hidden_layers": layers}


def directory(cache: Path, layers: int) -> Path:
    """Of the Hugging Face files; the peers' own files lie beside them."""
    return cache / "bench-engine" / f"qwen2-random-{layers}"


def prompt(seed: int, count: int) -> list[int]:
    """`count` tokens that no prompt of another seed begins with. Programs have the same lines: see ours.py."""
    state, tokens = seed * 7919 + 1, []
    for _ in range(count):
        state = (state * 1_103_515_245 + 12_345) % 2_147_483_648
        tokens.append((state >> 8) % 151_000)
    return tokens


def agreed_prompts() -> list[list[int]]:
    return [prompt(9000 + place, AGREED_PROMPT_TOKENS) for place in range(AGREED_PROMPTS)]


