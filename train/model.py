"""The model: its size, and its files in the layout of Hugging Face's `LlamaForCausalLM`."""

from __future__ import annotations

import json
from collections.abc import Sequence
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
    """The logits [places, vocabulary] where `places` [T] is true. What follows the last layer's attention is
    computed for these alone: a tenth of the work less than all of them, with the same result.
    """
    *layers, last = model.model.layers
    hidden = model.model.embed_tokens(batch.ids)  # [T, hidden]
    turn = model.model.rotary_emb(hidden, batch.positions[None])
    for layer in layers:
        hidden = after(layer, hidden, attended(layer, hidden, turn, batch.lengths))
    mixed = attended(last, hidden, turn, batch.lengths)
    logits: torch.Tensor = model.lm_head(model.model.norm(after(last, hidden[places], mixed[places])))
    return logits


def attended(
    layer: Any, hidden: torch.Tensor, turn: tuple[torch.Tensor, torch.Tensor], lengths: Sequence[int]
) -> torch.Tensor:
    """The heads' outputs [T, heads * width] before they are projected: each dialogue attends to itself alone."""
    attention, hidden = layer.self_attn, layer.input_layernorm(hidden)
    projections = (attention.q_proj, attention.k_proj, attention.v_proj)
    shape = (1, len(hidden), -1, attention.head_dim)
    query, key, value = (project(hidden).view(shape).transpose(1, 2) for project in projections)
    query, key = apply_rotary_pos_emb(query, key, *turn)
    dialogues = zip(*(part.split(list(lengths), dim=2) for part in (query, key, value)), strict=True)
    mixed = [
        functional.scaled_dot_product_attention(query, key, value, is_causal=True, enable_gqa=True)
        for query, key, value in dialogues
    ]
    return torch.cat(mixed, dim=2)[0].transpose(0, 1).flatten(1)


def after(layer: Any, hidden: torch.Tensor, mixed: torch.Tensor) -> torch.Tensor:
    """What follows a layer's attention, for each token by itself."""
    hidden = hidden + layer.self_attn.o_proj(mixed)
    return hidden + layer.mlp(layer.post_attention_layernorm(hidden))  # type: ignore[no-any-return]


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
