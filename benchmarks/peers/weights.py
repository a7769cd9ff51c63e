"""Writes a model of random weights as a Hugging Face directory: python -m benchmarks.peers.weights DIRECTORY LAYERS"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import torch
from safetensors.torch import save_file
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

from benchmarks.peers.model import SHAPE, shape
from cadenza.kernel.model.config import ModelConfig
from cadenza.kernel.model.weights import RandomWeights


def vocabulary() -> dict[str, int]:
    """The 256 bytes and nonsense: engines are given tokens, but some will not start without a tokenizer."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    return {word: number for number, word in enumerate([*alphabet, *(f"w{n}" for n in range(256, 151_643))])}


def tokenizer() -> Tokenizer:
    made = Tokenizer(models.BPE(vocab=vocabulary(), merges=[]))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    made.add_special_tokens([AddedToken(f"<|{name}|>", special=True) for name in ("endoftext", "im_start", "im_end")])
    return made


def write(directory: Path, layers: int) -> None:
    """Blocks; 1 GB for 24 layers. A half-written directory is never left at `directory`."""
    half = directory.with_suffix(".half")
    shutil.rmtree(half, ignore_errors=True)
    half.mkdir(parents=True)
    config = ModelConfig.from_mapping(shape(layers))
    save_file(dict(RandomWeights(config, torch.bfloat16)), half / "model.safetensors", metadata={"format": "pt"})
    (half / "config.json").write_text(json.dumps(shape(layers)))
    (half / "generation_config.json").write_text(json.dumps({"eos_token_id": SHAPE["eos_token_id"]}))
    (half / "tokenizer_config.json").write_text(json.dumps(
        {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "<|im_end|>", "pad_token": "<|endoftext|>"}))
    tokenizer().save(str(half / "tokenizer.json"))
    half.rename(directory)


if __name__ == "__main__":
    write(Path(sys.argv[1]), int(sys.argv[2]))
