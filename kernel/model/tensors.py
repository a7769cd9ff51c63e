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
        shapes = _attention_tensors(c) | (_experts_tensors(c, layer) or _mlp_tensors(c)) | _norm_tensors(c)
        needed |= {f"model.layers.{layer}.{name}": shape for name, shape in shapes.items()}
    needed["model.norm.weight"] = (c.hidden,)
    return needed if c.tied_embeddings else needed | {HEAD: (c.vocabulary_size, c.hidden)}


def _map(name: str, out: int, width: int, biased: bool = False) -> dict[str, Shape]:
    return {f"{name}.weight": (out, width)} | ({f"{name}.bias": (out,)} if biased else {})


def _attention_tensors(c: ModelConfig) -> dict[str, Shape]:
    queries, keys = c.heads * c.head_dim, c.kv_heads * c.head_dim
    shapes = _map("self_attn.o_proj", c.hidden, queries, c.output_bias)
    if c.fused:
        shapes |= _map("self_attn.qkv_proj", queries + 2 * keys, c.hidden, c.qkv_bias)
    else:
        for name, out in (("q", queries), ("k", keys), ("v", keys)):
            shapes |= _map(f"self_attn.{name}_proj", out, c.hidden, c.qkv_bias)
    if c.qk_norm:
        widths = (queries, keys) if c.whole_qk_norm else (c.head_dim, c.head_dim)
        shapes |= {f"self_attn.{name}_norm.weight": (width,) for name, width in zip("qk", widths, strict=True)}
    return shapes | ({"self_attn.sinks": (c.heads,)} if c.sinks else {})


def _mlp_tensors(c: ModelConfig) -> dict[str, Shape]:
    shapes = _map("mlp.down_proj", c.hidden, c.intermediate, c.mlp_bias)
    if c.fused:
        return shapes | _map("mlp.gate_up_proj", 2 * c.intermediate, c.hidden, c.mlp_bias)
    for name in ("gate", "up"):
        shapes |= _map(f"mlp.{name}_proj", c.intermediate, c.hidden, c.mlp_bias)
    return shapes


def _experts_tensors(c: ModelConfig, layer: int) -> dict[str, Shape]:
    """Empty for a layer without; of the clamped form, maps of all experts are in one tensor, [experts, in, out]."""
    if c.experts is None or not c.has_experts(layer):
        return {}
    count, width = c.experts.count, c.experts.intermediate
    if c.experts.clamped:
        return _map("mlp.router", count, c.hidden, biased=True) | {
            "mlp.experts.gate_up_proj": (count, c.hidden, 2 * width),
            "mlp.experts.gate_up_proj_bias": (count, 2 * width),
            "mlp.experts.down_proj": (count, width, c.hidden),
            "mlp.experts.down_proj_bias": (count, c.hidden),
        }
    shapes = _map("mlp.gate", count, c.hidden)
    for expert in range(count):
        shapes |= _map(f"mlp.experts.{expert}.down_proj", c.hidden, width)
        for name in ("gate", "up"):
            shapes |= _map(f"mlp.experts.{expert}.{name}_proj", width, c.hidden)
    return shapes


def norm_names(c: ModelConfig) -> dict[str, str]:
    """The names of a layer's norms by what they stand before and after, as far as there are any."""
    before = {"attention": "input_layernorm",
              "mlp": "pre_feedforward_layernorm" if c.norm_after else "post_attention_layernorm"}
    after = {"attention output": "post_attention_layernorm", "mlp output": "post_feedforward_layernorm"}
    return (before if c.norm_before else {}) | (after if c.norm_after else {})


def _norm_tensors(c: ModelConfig) -> dict[str, Shape]:
    return {f"{name}.weight": (c.hidden,) for name in norm_names(c).values()}


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
