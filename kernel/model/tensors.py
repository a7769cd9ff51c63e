"""Which tensors a directory holds and which a model needs: names, shapes and places, without torch.

A safetensors file is eight bytes of length, a JSON header, and the tensors' bytes at the offsets the header names
(https://huggingface.co/docs/safetensors). Pickled weights are refused: reading them runs code.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

from cadenza.kernel.model.config import ModelConfig
from cadenza.kernel.model.settings import read_json
from cadenza.kvfs.errors import Invalid, NotFound, Unsupported

SINGLE_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"
PICKLED = ("pytorch_model*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")
HEADER_BYTES = 100 << 20          # more than this is no header
DTYPE_BYTES = {"F32": 4, "BF16": 2, "F16": 2}
NAMED_FAULTS = 8                  # faults named in one message

EMBEDDING = "model.embed_tokens.weight"
HEAD = "lm_head.weight"

Shape = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """One tensor in a file: `size` bytes from `offset`, row-major, of `dtype` as safetensors names it."""

    file: Path
    dtype: str
    shape: Shape
    offset: int
    size: int


def weight_files(directory: Path) -> list[Path]:
    """The safetensors files of a model, one or many, in the order of their names.

    Raises NotFound when there are none or one that the index names is absent, Unsupported when there are only
    pickled ones.
    """
    if (directory / INDEX_FILE).exists():
        return _indexed_files(directory)
    if (directory / SINGLE_FILE).exists():
        return [directory / SINGLE_FILE]
    pickled = sorted(path.name for pattern in PICKLED for path in directory.glob(pattern))
    if pickled:
        raise Unsupported(
            f"{directory} holds only pickled weights ({pickled[0]}), and reading them runs code; convert them: "
            "load the model with transformers and call save_pretrained, which writes model.safetensors"
        )
    raise NotFound(f"{directory} has no weights: neither {SINGLE_FILE} nor {INDEX_FILE}")


def _indexed_files(directory: Path) -> list[Path]:
    index = directory / INDEX_FILE
    weight_map = read_json(index).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise Invalid(f"{index}: weight_map is not an object that names files", field="weight_map")
    names = sorted({str(name) for name in weight_map.values()})
    for name in names:
        if Path(name).name != name or not name.endswith(".safetensors"):
            fault = f"{index} names {name!r}, which is not a safetensors file of this directory"
            raise Invalid(fault, field="weight_map")
        if not (directory / name).exists():
            raise NotFound(f"{index} names {name}, which is not there; download it again")
    return [directory / name for name in names]


def stored_tensors(directory: Path) -> dict[str, StoredTensor]:
    """Every tensor of every file, by its name. Raises as `weight_files` does, and Invalid for a damaged header."""
    return {name: tensor for file in weight_files(directory) for name, tensor in file_tensors(file)}


def file_tensors(file: Path) -> Iterator[tuple[str, StoredTensor]]:
    """Every tensor of one file, with its name. Raises Invalid for a damaged header."""
    size = file.stat().st_size
    with file.open("rb") as opened:
        length = struct.unpack("<Q", opened.read(8))[0] if size >= 8 else size
        if length > min(HEADER_BYTES, size - 8):
            raise Invalid(f"{file} is no safetensors file, or is cut short ({size} bytes)", field=file.name)
        try:
            header = json.loads(opened.read(length))
            for name, entry in header.items():
                if name != "__metadata__":
                    yield name, _entry(file, entry, 8 + length, size)
        except (ValueError, KeyError, TypeError, AttributeError) as fault:
            raise Invalid(f"{file} has a damaged header: {fault!r}; download it again", field=file.name) from None


def _entry(file: Path, entry: Mapping[str, Any], start: int, file_size: int) -> StoredTensor:
    first, end = entry["data_offsets"]
    if not 0 <= first <= end <= file_size - start:
        raise Invalid(f"{file} is cut short: {file_size} bytes, and a tensor ends at {start + end}", field=file.name)
    return StoredTensor(file, entry["dtype"], tuple(int(n) for n in entry["shape"]), start + first, end - first)


def needed_tensors(config: ModelConfig) -> dict[str, Shape]:
    """The tensors of a decoder and their shapes; a linear map is [out, in]."""
    c = config
    needed: dict[str, Shape] = {EMBEDDING: (c.vocabulary_size, c.hidden)}
    for layer in range(c.layers):
        needed |= {f"model.layers.{layer}.{name}": shape for name, shape in _layer_tensors(c).items()}
    needed["model.norm.weight"] = (c.hidden,)
    return needed if c.tied_embeddings else needed | {HEAD: (c.vocabulary_size, c.hidden)}


def _layer_tensors(c: ModelConfig) -> dict[str, Shape]:
    queries, keys = c.heads * c.head_dim, c.kv_heads * c.head_dim
    maps = {
        "self_attn.q_proj": (queries, c.hidden, c.qkv_bias),
        "self_attn.k_proj": (keys, c.hidden, c.qkv_bias),
        "self_attn.v_proj": (keys, c.hidden, c.qkv_bias),
        "self_attn.o_proj": (c.hidden, queries, c.output_bias),
        "mlp.gate_proj": (c.intermediate, c.hidden, c.mlp_bias),
        "mlp.up_proj": (c.intermediate, c.hidden, c.mlp_bias),
        "mlp.down_proj": (c.hidden, c.intermediate, c.mlp_bias),
    }
    shapes: dict[str, Shape] = {f"{name}.weight": (out, width) for name, (out, width, _) in maps.items()}
    shapes |= {f"{name}.bias": (out,) for name, (out, _, bias) in maps.items() if bias}
    if c.qk_norm:
        shapes |= {f"self_attn.{name}_norm.weight": (c.head_dim,) for name in "qk"}
    return shapes | {f"{name}_layernorm.weight": (c.hidden,) for name in ("input", "post_attention")}


def tensor_faults(config: ModelConfig, stored: Mapping[str, StoredTensor]) -> list[str]:
    """What of the needed tensors is missing or mismatching, a line each, with expected and actual shape."""
    faults = []
    for name, shape in needed_tensors(config).items():
        tensor = stored.get(name)
        if tensor is None:
            faults.append(f"tensor {name} of shape {list(shape)} is missing")
        elif tensor.shape != shape:
            faults.append(f"tensor {name} should have shape {list(shape)} by config.json and has {list(tensor.shape)}")
        elif tensor.dtype not in DTYPE_BYTES:
            faults.append(f"tensor {name} is of {tensor.dtype}; {', '.join(DTYPE_BYTES)} are supported")
        elif tensor.size != prod(shape) * DTYPE_BYTES[tensor.dtype]:
            faults.append(f"tensor {name} of shape {list(shape)} and {tensor.dtype} is {tensor.size} bytes long")
    return faults


def checked_tensors(directory: Path, config: ModelConfig) -> dict[str, StoredTensor]:
    """The needed tensors only, all there and of the right shape; else Invalid, naming them."""
    stored = stored_tensors(directory)
    faults = tensor_faults(config, stored)
    if faults:
        rest = len(faults) - NAMED_FAULTS
        more = [f"and {rest} more"] if rest > 0 else []
        raise Invalid(f"{directory}: " + "; ".join(faults[:NAMED_FAULTS] + more), field="weights")
    return {name: stored[name] for name in needed_tensors(config)}
