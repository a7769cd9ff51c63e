"""Small random adapters of tiny models, as `peft` makes and saves them."""

from __future__ import annotations

import copy
import warnings
from pathlib import Path
from typing import Any

import peft
import torch

from .tiny_models import TinyModel

LINEARS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def save_tiny_adapter(model: TinyModel, directory: Path, seed: int = 0, **settings: Any) -> TinyModel:
    """An adapter of `model`, saved to `directory`; answers the two of them as one reference, and that directory.

    `settings` are of peft's LoraConfig. Its numbers are large enough that it says other things than the model.
    """
    config = peft.LoraConfig(**{"r": 4, "lora_alpha": 8, "target_modules": LINEARS, **settings})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")                  # peft asks transformers in a way that is deprecated
        adapted: Any = peft.get_peft_model(copy.deepcopy(model.reference), config).eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if "lora_" in name:
                parameter.normal_(0.0, 0.15, generator=generator)
    adapted.save_pretrained(directory, save_embedding_layers=False)
    return TinyModel(directory, adapted)
