"""The model: its size, and its files in the layout of Hugging Face's `LlamaForCausalLM`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer
from torch.nn import functional
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM
from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

from train.data import NOT_LEARNT, Batch
from train.dialogue import BEGIN, END, PAD
from train.tokenizer import MODEL_MAX_LENGTH


def new_model(tokenizer: Tokenizer, seed: int) -> LlamaForCausalLM:
    """A model with random weights. A head is 64 wide, the least that common attention kernels are built for."""
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=tokenizer.get_vocab_size(),
        hidden_size=256,
        intermediate_size=384,
        num_hidden_layers=5,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=64,
        max_position_embeddings=MODEL_MAX_LENGTH,
        rms_norm_eps=1e-5,
        tie_word_embeddings=True,
        bos_token_id=tokenizer.token_to_id(BEGIN),
        eos_token_id=tokenizer.token_to_id(END),
        pad_token_id=tokenizer.token_to_id(PAD),
    )
    return LlamaForCausalLM(config)


def load_model(folder: Path) -> LlamaForCausalLM:
    """The model that `save_model` wrote into this folder, in fp32."""
    model: LlamaForCausalLM = LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32)
    model.train()
    return model


def loss_of(model: LlamaForCausalLM, batch: Batch) -> torch.Tensor:
    """Mean cross-entropy in nats over the learnt tokens of the batch, a scalar."""
    learnt = batch.targets != NOT_LEARNT
    return functional.cross_entropy(logits_at(model, batch, learnt), batch.targets[learnt])


def logits_at(model: LlamaForCausalLM, batch: Batch, places: torch.Tensor) -> torch.Tensor:
    """The logits [places, vocabulary] where `places` [B, L] is true. What follows the last layer's attention is
    computed for these alone: a tenth of the work less than `model(batch.ids)`, with the same result.
    """
    *layers, last = model.model.layers
    hidden = model.model.embed_tokens(batch.ids)  # [B, L, hidden]
    turn = model.model.rotary_emb(hidden, torch.arange(batch.ids.shape[1])[None])
    for layer in layers:
        hidden = layer(hidden, attention_mask=batch.mask, position_embeddings=turn)
    mixed = attended(last.self_attn, last.input_layernorm(hidden), turn, batch.mask)
    kept = hidden[places] + last.self_attn.o_proj(mixed[places])
    kept = kept + last.mlp(last.post_attention_layernorm(kept))
    logits: torch.Tensor = model.lm_head(model.model.norm(kept))
    return logits


def attended(
    attention: Any, hidden: torch.Tensor, turn: tuple[torch.Tensor, torch.Tensor], mask: torch.Tensor
) -> torch.Tensor:
    """The heads' outputs [B, L, heads * width] before they are projected."""
    shape = (*hidden.shape[:2], -1, attention.head_dim)
    projections = (attention.q_proj, attention.k_proj, attention.v_proj)
    query, key, value = (project(hidden).view(shape).transpose(1, 2) for project in projections)
    query, key = apply_rotary_pos_emb(query, key, *turn)
    mixed = functional.scaled_dot_product_attention(query, key, value, attn_mask=mask, enable_gqa=True)
    return mixed.transpose(1, 2).flatten(2)


def save_model(model: LlamaForCausalLM, folder: Path) -> None:
    """Writes config.json, generation_config.json and model.safetensors with the weights in bf16."""
    copy = LlamaForCausalLM(model.config)
    copy.load_state_dict(model.state_dict())
    torch.nn.Module.to(copy, torch.bfloat16)
    config = model.config
    copy.generation_config = GenerationConfig(  # type: ignore[no-untyped-call]
        do_sample=False,
        bos_token_id=config.bos_token_id,
        eos_token_id=config.eos_token_id,
        pad_token_id=config.pad_token_id,
    )
    copy.save_pretrained(folder)
    settings = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    settings["rope_theta"] = settings["rope_parameters"]["rope_theta"]  # where readers older than rope_parameters look
    (folder / "config.json").write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
    (folder / "model.safetensors").chmod(0o644)
