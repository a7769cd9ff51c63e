"""Small random models of each family, as transformers makes and saves them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers

SHAPE: dict[str, Any] = {
    "vocab_size": 160,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
LLAMA3_ROPE = {
    "rope_type": "llama3", "rope_theta": 5e5, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}


def config_of(name: str) -> Any:
    """A transformers configuration, by what is particular to it."""
    made: dict[str, Any] = {
        "llama": lambda: transformers.LlamaConfig(**SHAPE),
        "llama3-rope": lambda: transformers.LlamaConfig(**SHAPE, rope_parameters=LLAMA3_ROPE),
        "llama-tied-biased": lambda: transformers.LlamaConfig(
            **SHAPE, tie_word_embeddings=True, attention_bias=True, mlp_bias=True, head_dim=16
        ),
        "qwen2": lambda: transformers.Qwen2Config(**SHAPE),
        "qwen2-tied": lambda: transformers.Qwen2Config(**SHAPE, tie_word_embeddings=True),
        "qwen3": lambda: transformers.Qwen3Config(**SHAPE, head_dim=16),
        "qwen3-tied-biased": lambda: transformers.Qwen3Config(
            **SHAPE, head_dim=16, tie_word_embeddings=True, attention_bias=True
        ),
    }
    return (made | _OTHERS)[name]()


PHI3_ROPE = {
    "rope_type": "longrope", "rope_theta": 1e4, "partial_rotary_factor": 0.75,
    "short_factor": [1.0, 1.1, 1.5, 2.0, 2.5, 4.0], "long_factor": [9.0] * 6, "original_max_position_embeddings": 256,
}
YARN = {"rope_type": "yarn", "rope_theta": 1e4, "factor": 4.0, "original_max_position_embeddings": 64}
GEMMA = {"head_dim": 16, "query_pre_attn_scalar": 24, "sliding_window": 12}
EXPERTS = {"moe_intermediate_size": 24, "num_experts": 6, "num_experts_per_tok": 2, "head_dim": 16}
_OTHERS: dict[str, Any] = {
    "qwen2-windows": lambda: transformers.Qwen2Config(
        **SHAPE, use_sliding_window=True, sliding_window=12, max_window_layers=1, rope_parameters=YARN
    ),
    "mistral": lambda: transformers.MistralConfig(**SHAPE, sliding_window=12),
    "mistral-whole": lambda: transformers.MistralConfig(**SHAPE, sliding_window=None, head_dim=16),
    "gemma2": lambda: transformers.Gemma2Config(
        **SHAPE, **GEMMA, attn_logit_softcapping=1.5, final_logit_softcapping=8.0
    ),
    "gemma3": lambda: transformers.Gemma3TextConfig(
        **SHAPE, **GEMMA, layer_types=["sliding_attention", "full_attention"],
        rope_parameters={"full_attention": {"rope_type": "linear", "factor": 4.0, "rope_theta": 1e6},
                         "sliding_attention": {"rope_type": "default", "rope_theta": 1e4}},
    ),
    "phi3": lambda: transformers.Phi3Config(**SHAPE, pad_token_id=0, sliding_window=12),
    "phi3-longrope": lambda: transformers.Phi3Config(
        **{**SHAPE, "hidden_size": 64}, pad_token_id=0, rope_parameters=PHI3_ROPE
    ),
    "olmo2": lambda: transformers.Olmo2Config(**SHAPE),
    "qwen3-moe": lambda: transformers.Qwen3MoeConfig(**SHAPE, **EXPERTS, norm_topk_prob=True),
    "qwen3-moe-mixed": lambda: transformers.Qwen3MoeConfig(**SHAPE, **EXPERTS, mlp_only_layers=[0]),
    "gpt-oss": lambda: transformers.GptOssConfig(
        **SHAPE, head_dim=16, sliding_window=12, num_local_experts=4, num_experts_per_tok=2, swiglu_limit=1.0
    ),
}

NAMES = ("llama", "llama3-rope", "llama-tied-biased", "qwen2", "qwen2-tied", "qwen3", "qwen3-tied-biased", *_OTHERS)


@dataclass(frozen=True)
class TinyModel:
    """A directory and the reference that was saved to it."""

    directory: Path
    reference: Any

    def logits(self, tokens: list[int]) -> torch.Tensor:
        """float32 [tokens, vocabulary]."""
        with torch.no_grad():
            logits: torch.Tensor = self.reference(torch.tensor([tokens])).logits[0]
            return logits

    def states(self, tokens: list[int]) -> torch.Tensor:
        """float32 [tokens, hidden]: what the head sees."""
        with torch.no_grad():
            states: torch.Tensor = self.reference(torch.tensor([tokens]), output_hidden_states=True).hidden_states[-1]
            return states[0]

    def chosen(self, prompt: list[int], made: list[int]) -> list[int]:
        """The likeliest token after the prompt and after each but the last of `made`: it is `made` if and only if that
        is what greedy decoding makes."""
        return [int(token) for token in self.logits(prompt + made[:-1])[len(prompt) - 1 :].argmax(-1)]

    def greedy(self, prompt: list[int], count: int) -> list[int]:
        """The `count` tokens after `prompt`, each the likeliest."""
        tokens, cache = torch.tensor([prompt]), None
        made: list[int] = []
        with torch.no_grad():
            while len(made) < count:
                out = self.reference(tokens, past_key_values=cache, use_cache=True)
                cache = out.past_key_values
                made.append(int(out.logits[0, -1].argmax()))
                tokens = torch.tensor([[made[-1]]])
        return made


def save_tiny_model(name: str, directory: Path, shard_bytes: int = 1 << 30) -> TinyModel:
    """The same weights for the same name; large enough that its answers differ from token to token."""
    torch.set_num_threads(1)
    torch.random.manual_seed(sum(name.encode()))
    factory: Any = transformers.AutoModelForCausalLM
    model = factory.from_config(config_of(name), attn_implementation="eager").float().eval()
    with torch.no_grad():
        for parameter_name, parameter in model.named_parameters():
            noise = torch.randn_like(parameter)
            parameter.copy_(1 + 0.3 * noise if "norm" in parameter_name else 0.25 * noise)
    model.save_pretrained(directory, max_shard_size=shard_bytes)
    return TinyModel(directory, model)
