"""What a `peft` directory of a LoRA adapter holds, and whether it can be served: its settings, names and shapes.
No torch (Hu et al. 2021; rslora: Kalajdzievski 2023).

    y = W x + scale · B A x          A [rank, in], B [out, rank], scale = alpha / rank, or alpha / √rank with rslora

Served is this on the linear maps of the decoder and on its head. Whatever else the settings ask for is refused: an
adapter that is computed otherwise than it was trained is worse than none.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from cadenza.kernel.limits import ADAPTER_RANK
from cadenza.kernel.model.config import ModelConfig
from cadenza.kernel.model.settings import read_json
from cadenza.kernel.model.tensors import DTYPE_BYTES, HEAD, NAMED_FAULTS, StoredTensor, file_tensors, needed_tensors
from cadenza.kvfs.errors import Invalid, LimitExceeded, NotFound, Unsupported

ADAPTER_CONFIG = "adapter_config.json"
ADAPTER_WEIGHTS = "adapter_model.safetensors"
ADAPTER_PICKLED = "adapter_model.bin"
SUPPORTED = ("LoRA of `peft` on q_proj, k_proj, v_proj, o_proj, gate_proj, up_proj, down_proj (or qkv_proj and "
             "gate_up_proj) and lm_head, not on experts or their router, with r, lora_alpha and use_rslora")

# Settings that say how it was trained, or where the tensors' names say the same: any value of them will do.
_TOLD = frozenset((
    "auto_mapping", "base_model_name_or_path", "ensure_weight_tying", "eva_config", "exclude_modules", "inference_mode",
    "init_lora_weights", "layers_pattern", "layers_to_transform", "lora_alpha", "lora_dropout", "megatron_core",
    "peft_type", "peft_version", "qalora_group_size", "r", "revision", "target_modules", "task_type", "use_rslora",
))  # fmt: skip
# These beginnings change the weights of the model itself, which we do not.
_CHANGE_THE_MODEL = ("pissa", "olora", "corda", "loftq", "lora_ga")

_NAME = re.compile(r"base_model\.model\.(model\.layers\.\d+\.(?:self_attn\.(?:[qkvo]|qkv)_proj"
                   r"|mlp\.(?:gate|up|down|gate_up)_proj)"
                   r"|lm_head)\.lora_([AB])\.weight")


class LowRankPair(NamedTuple):
    """`down`: A, [rank, in]; `up`: B, [out, rank]."""

    down: StoredTensor
    up: StoredTensor


@dataclass(frozen=True, slots=True)
class StoredAdapter:
    """An adapter on disk. `pairs` by the name of the linear map that each adds to, as "model.layers.0.mlp.up_proj"."""

    file: Path
    rank: int
    scale: float
    pairs: Mapping[str, LowRankPair]

    @property
    def targets(self) -> tuple[str, ...]:
        """The kinds of maps that it adds to, as "q_proj"."""
        return tuple(sorted({name.rpartition(".")[2] for name in self.pairs}))

    @property
    def weight_bytes(self) -> int:
        return sum(tensor.size for pair in self.pairs.values() for tensor in pair)


def read_adapter(directory: Path) -> StoredAdapter:
    """Reads the settings and the header of the weights. Raises NotFound, Invalid for what is damaged, Unsupported for
    what is not served, LimitExceeded for too high a rank."""
    settings = read_json(directory / ADAPTER_CONFIG)
    rank, scale = checked_settings(settings)
    file = directory / ADAPTER_WEIGHTS
    if not file.exists():
        if (directory / ADAPTER_PICKLED).exists():
            raise Unsupported(f"{directory} holds pickled weights ({ADAPTER_PICKLED}), and reading them runs code; "
                              f"save the adapter again with peft's save_pretrained, which writes {ADAPTER_WEIGHTS}")
        raise NotFound(f"{directory} has no {ADAPTER_WEIGHTS}")
    return StoredAdapter(file, rank, scale, _pairs(dict(file_tensors(file)), rank))


def checked_settings(settings: Mapping[str, Any]) -> tuple[int, float]:
    """Rank and scale. Raises as `read_adapter` does."""
    if settings.get("peft_type") != "LORA":
        raise _unsupported(f"peft_type is {settings.get('peft_type')!r}")
    for name, value in settings.items():
        if name not in _TOLD and value not in (None, False, "none", {}, []):
            raise _unsupported(f"it sets {name} to {value!r}")
    begun = settings.get("init_lora_weights", True)
    if isinstance(begun, str) and begun.startswith(_CHANGE_THE_MODEL):
        raise _unsupported(f"init_lora_weights is {begun!r}, which changes the model as well (peft can convert it: "
                           "save_pretrained with path_initial_model_for_weight_conversion)")
    rank, alpha = settings.get("r"), settings.get("lora_alpha")
    if not isinstance(rank, int) or rank < 1 or not isinstance(alpha, int | float) or not math.isfinite(alpha):
        raise Invalid(f"{ADAPTER_CONFIG}: r is {rank!r} and lora_alpha {alpha!r}; give two numbers", "r")
    if rank > ADAPTER_RANK:
        raise LimitExceeded(f"the adapter has rank {rank}; at most {ADAPTER_RANK} is served", "adapter_rank")
    return rank, alpha / (math.sqrt(rank) if settings.get("use_rslora") else rank)


def check_shapes(adapter: StoredAdapter, config: ModelConfig) -> None:
    """Raises Invalid unless every pair fits a linear map of that model."""
    maps = needed_tensors(config)
    maps.setdefault(HEAD, (config.vocabulary_size, config.hidden))
    faults = []
    for name, (down, up) in adapter.pairs.items():
        shape = maps.get(f"{name}.weight")
        if shape is None:
            faults.append(f"the model has no {name}")
        elif (up.shape[0], down.shape[1]) != shape:
            faults.append(f"{name} is {list(shape)}, and the adapter's is [{up.shape[0]}, {down.shape[1]}]")
    if faults:
        raise Invalid("the adapter is of another model: " + "; ".join(faults[:NAMED_FAULTS]), "weights")


def _pairs(tensors: Mapping[str, StoredTensor], rank: int) -> dict[str, LowRankPair]:
    sides: dict[str, dict[str, StoredTensor]] = {}
    for name, tensor in tensors.items():
        found = _NAME.fullmatch(name)
        if found is None:
            more = "; save it with save_embedding_layers=False" if "base_layer" in name or "embed" in name else ""
            raise _unsupported(f"it has a tensor {name}{more}")
        _check_tensor(name, tensor, rank, found[2])
        sides.setdefault(found[1], {})[found[2]] = tensor
    halves = [name for name, pair in sides.items() if len(pair) < 2]
    if halves or not sides:
        raise Invalid(f"{ADAPTER_WEIGHTS}: {halves[0]} has only one of A and B" if halves else
                      f"{ADAPTER_WEIGHTS} holds no tensors", "weights")
    return {name: LowRankPair(pair["A"], pair["B"]) for name, pair in sides.items()}


def _check_tensor(name: str, tensor: StoredTensor, rank: int, side: str) -> None:
    shape = tensor.shape
    if tensor.dtype not in DTYPE_BYTES:
        raise _unsupported(f"tensor {name} is of {tensor.dtype}; {', '.join(DTYPE_BYTES)} are read")
    if len(shape) != 2 or shape[0 if side == "A" else 1] != rank:
        raise Invalid(f"tensor {name} has shape {list(shape)}; by r it should have rank {rank}", "weights")
    if tensor.size != shape[0] * shape[1] * DTYPE_BYTES[tensor.dtype]:
        raise Invalid(f"tensor {name} of shape {list(shape)} is {tensor.size} bytes long", "weights")


def _unsupported(fault: str) -> Unsupported:
    return Unsupported(f"this adapter cannot be served: {fault}. What is served: {SUPPORTED}")
