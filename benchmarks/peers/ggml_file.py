"""The weights as GGUF, for llama.cpp and OpenVINO GenAI. Runs among the peers: needs the package `gguf`, not torch.

Of the tensors, matrices are written as bfloat16, float16 or q8_0, vectors as float32.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

OUTSIDE = {"model.embed_tokens.weight": "token_embd.weight", "model.norm.weight": "output_norm.weight",
           "lm_head.weight": "output.weight"}
INSIDE = {
    "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm",
    "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down",
}


def ggml_name(name: str) -> str:
    """`model.layers.3.mlp.up_proj.weight` is `blk.3.ffn_up.weight` there. Raises KeyError for an unknown one."""
    if name in OUTSIDE:
        return OUTSIDE[name]
    layer, rest = name.removeprefix("model.layers.").split(".", 1)
    part, kind = rest.rsplit(".", 1)
    return f"blk.{int(layer)}.{INSIDE[part]}.{kind}"


def bfloat16_tensors(file: Path) -> Iterator[tuple[str, npt.NDArray[np.uint16]]]:
    """Every tensor of a safetensors file, mapped. All are bfloat16, as their bits."""
    with file.open("rb") as opened:
        (length,) = struct.unpack("<Q", opened.read(8))
        header: dict[str, Any] = json.loads(opened.read(length))
    values = np.memmap(file, np.uint16, "r", offset=8 + length)
    for name, stored in header.items():
        if name != "__metadata__":
            assert stored["dtype"] == "BF16", (name, stored["dtype"])
            first, end = (offset // 2 for offset in stored["data_offsets"])
            yield name, values[first:end].reshape(stored["shape"])


def widened(bits: npt.NDArray[np.uint16]) -> npt.NDArray[np.float32]:
    return (bits.astype(np.uint32) << 16).view(np.float32)


def written(directory: Path, kind: str) -> Path:
    """The file of `kind` (bf16, f16, q8_0) of the model in `directory`, written if it is not there yet."""
    file = directory / f"model-{kind}.gguf"
    if not file.exists():
        half = file.with_suffix(".half")
        write(directory, half, kind)
        half.rename(file)
    return file


def write(directory: Path, file: Path, kind: str) -> None:
    import gguf

    config = json.loads((directory / "config.json").read_text())
    writer = gguf.GGUFWriter(file, "qwen2")
    describe(writer, config, {"bf16": gguf.LlamaFileType.MOSTLY_BF16, "f16": gguf.LlamaFileType.MOSTLY_F16,
                              "q8_0": gguf.LlamaFileType.MOSTLY_Q8_0}[kind])
    name_tokens(writer, json.loads((directory / "tokenizer.json").read_text()), config)
    for name, bits in bfloat16_tensors(directory / "model.safetensors"):
        values, dtype = stored_as(bits, kind)
        writer.add_tensor(ggml_name(name), values, raw_dtype=dtype)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def stored_as(bits: npt.NDArray[np.uint16], kind: str) -> tuple[npt.NDArray[Any], Any]:
    """The values as they go into the file, and their type if numpy has none for it."""
    import gguf

    if bits.ndim == 1:
        return widened(bits), None
    if kind == "bf16":
        return np.ascontiguousarray(bits).view(np.uint8), gguf.GGMLQuantizationType.BF16
    if kind == "f16":
        return widened(bits).astype(np.float16), None
    return gguf.quants.quantize(widened(bits), gguf.GGMLQuantizationType.Q8_0), gguf.GGMLQuantizationType.Q8_0


def describe(writer: Any, config: dict[str, Any], file_type: int) -> None:
    writer.add_name("random")
    writer.add_file_type(file_type)
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_rope_freq_base(config["rope_theta"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_vocab_size(config["vocab_size"])


def name_tokens(writer: Any, tokenizer: dict[str, Any], config: dict[str, Any]) -> None:
    """Byte-level BPE without merges: llama.cpp and OpenVINO want one to be there, so one that never applies."""
    import gguf

    words = {number: word for word, number in tokenizer["model"]["vocab"].items()}
    special = {added["id"]: added["content"] for added in tokenizer["added_tokens"]}
    known = {**words, **special}
    count = config["vocab_size"]
    types = [gguf.TokenType.CONTROL if number in special else gguf.TokenType.NORMAL if number in words
             else gguf.TokenType.UNUSED for number in range(count)]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("qwen2")
    writer.add_token_list([known.get(number, f"[PAD{number}]") for number in range(count)])
    writer.add_token_types([int(kind) for kind in types])
    writer.add_token_merges(["w 3"])
    writer.add_bos_token_id(config["bos_token_id"])
    writer.add_eos_token_id(config["eos_token_id"])
    writer.add_add_bos_token(False)
