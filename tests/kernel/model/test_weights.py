"""The weights of a directory: what is read, what is refused, and what names it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from cadenza.kernel.model.config import ModelConfig
from cadenza.kernel.model.facts import describe
from cadenza.kernel.model.fingerprint import fingerprint
from cadenza.kernel.model.tensors import INDEX_FILE, SINGLE_FILE, needed_tensors, weight_files
from cadenza.kernel.model.weights import RandomWeights, StoredWeights
from cadenza.kvfs.errors import Invalid, NotFound, Unsupported

from .tiny_models import NAMES, TinyModel, save_tiny_model


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> TinyModel:
    return save_tiny_model("llama", tmp_path_factory.mktemp("llama"))


@pytest.fixture
def directory(saved: TinyModel, tmp_path: Path) -> Path:
    """A copy that may be spoilt."""
    return Path(shutil.copytree(saved.directory, tmp_path / "model"))


@pytest.fixture
def config(saved: TinyModel) -> ModelConfig:
    return ModelConfig.from_directory(saved.directory)


def spoil(directory: Path, **changes: torch.Tensor | None) -> None:
    """Rewrites tensors of the one file; None takes one away."""
    tensors = load_file(directory / SINGLE_FILE)
    for name, tensor in changes.items():
        del tensors[name]
        if tensor is not None:
            tensors[name] = tensor
    save_file(tensors, directory / SINGLE_FILE)


@pytest.mark.parametrize("name", NAMES)
def test_needed_tensors_are_those_that_transformers_saves(name: str, tmp_path: Path) -> None:
    model = save_tiny_model(name, tmp_path)
    saved = {key: tuple(tensor.shape) for key, tensor in load_file(tmp_path / SINGLE_FILE).items()}
    assert needed_tensors(ModelConfig.from_directory(tmp_path)) == saved
    assert describe(tmp_path).parameters == sum(p.numel() for p in model.reference.parameters())


def test_reading_tells_of_its_progress(saved: TinyModel, config: ModelConfig) -> None:
    told: list[tuple[int, int]] = []
    weights = StoredWeights(saved.directory, config, lambda done, total: told.append((done, total)))
    assert told == []
    state = saved.reference.state_dict()
    for name in weights:
        assert torch.equal(weights[name], state[name])
    assert len(told) == len(weights) == len(needed_tensors(config))
    assert told[-1][0] == told[-1][1] == describe(saved.directory).weight_bytes
    assert sorted(told) == told


def test_no_weights(directory: Path, config: ModelConfig) -> None:
    (directory / SINGLE_FILE).unlink()
    with pytest.raises(NotFound, match=r"no weights.*model\.safetensors"):
        StoredWeights(directory, config)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "pytorch_model-00001-of-00002.bin", "consolidated.00.pth"])
def test_pickled_weights_are_refused_with_a_way_out(directory: Path, config: ModelConfig, name: str) -> None:
    (directory / SINGLE_FILE).rename(directory / name)
    with pytest.raises(Unsupported, match=r"convert.*save_pretrained") as caught:
        StoredWeights(directory, config)
    assert name in caught.value.message


def test_a_missing_tensor_is_named_with_its_shape(directory: Path, config: ModelConfig) -> None:
    spoil(directory, **{"model.layers.1.self_attn.k_proj.weight": None})
    with pytest.raises(Invalid, match=r"model\.layers\.1\.self_attn\.k_proj\.weight of shape \[16, 32\] is missing"):
        StoredWeights(directory, config)


def test_a_mismatching_tensor_is_named_with_both_shapes(directory: Path, config: ModelConfig) -> None:
    spoil(directory, **{"model.norm.weight": torch.ones(31)})
    with pytest.raises(Invalid, match=r"model\.norm\.weight should have shape \[32\] .* has \[31\]"):
        StoredWeights(directory, config)


def test_a_tensor_of_another_type_is_named(directory: Path, config: ModelConfig) -> None:
    spoil(directory, **{"model.norm.weight": torch.ones(32, dtype=torch.int64)})
    with pytest.raises(Invalid, match=r"model\.norm\.weight is of I64"):
        StoredWeights(directory, config)


def test_many_faults_are_counted(directory: Path) -> None:
    raw = json.loads((directory / "config.json").read_text())
    wide = ModelConfig.from_mapping({**raw, "hidden_size": 64, "head_dim": 8})
    with pytest.raises(Invalid, match=r"\[160, 64\] by config\.json and has \[160, 32\]; .* more$"):
        StoredWeights(directory, wide)


@pytest.mark.parametrize("size", [0, 7, 100, -1])
def test_a_truncated_file_is_named(directory: Path, config: ModelConfig, size: int) -> None:
    whole = (directory / SINGLE_FILE).read_bytes()
    (directory / SINGLE_FILE).write_bytes(whole[:size])
    with pytest.raises(Invalid, match=r"model\.safetensors"):
        StoredWeights(directory, config)


@pytest.mark.parametrize(
    "header",
    [b"{", b"[]", b'{"a": 1}', b'{"a": {"dtype": "F32", "shape": [1]}}',
     b'{"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 99]}}',
     b'{"a": {"dtype": "F32", "shape": 3, "data_offsets": [0, 4]}}'],
)
def test_a_damaged_header_is_refused(directory: Path, config: ModelConfig, header: bytes) -> None:
    (directory / SINGLE_FILE).write_bytes(len(header).to_bytes(8, "little") + header + b"1234")
    with pytest.raises(Invalid, match=r"model\.safetensors"):
        StoredWeights(directory, config)


def test_an_index_that_names_what_is_not_there(directory: Path, config: ModelConfig) -> None:
    index = directory / INDEX_FILE
    index.write_text(json.dumps({"weight_map": {"model.norm.weight": "model-00001-of-00002.safetensors"}}))
    with pytest.raises(NotFound, match="model-00001-of-00002"):
        StoredWeights(directory, config)
    index.write_text(json.dumps({"weight_map": {"model.norm.weight": "../elsewhere/model.safetensors"}}))
    with pytest.raises(Invalid, match="not a safetensors file of this directory"):
        StoredWeights(directory, config)
    index.write_text("{}")
    with pytest.raises(Invalid, match="weight_map"):
        StoredWeights(directory, config)


def test_the_fingerprint_is_of_the_content_alone(
    saved: TinyModel, directory: Path, config: ModelConfig, tmp_path: Path
) -> None:
    name = fingerprint(saved.directory, config)
    sharded = save_tiny_model("llama", tmp_path / "sharded", 20_000).directory
    assert len(weight_files(sharded)) > 1
    assert fingerprint(sharded, ModelConfig.from_directory(sharded)) == name
    weight = load_file(directory / SINGLE_FILE)["model.norm.weight"]
    weight[3] += 1
    spoil(directory, **{"model.norm.weight": weight})
    assert fingerprint(directory, config) != name
    raw = json.loads((directory / "config.json").read_text())
    assert fingerprint(saved.directory, ModelConfig.from_mapping({**raw, "rms_norm_eps": 0.5})) != name


def test_describe_collects_every_problem(directory: Path) -> None:
    spoil(directory, **{"model.norm.weight": torch.ones(31), "lm_head.weight": None})
    report = describe(directory)
    assert report.family == "llama"
    assert report.kv_bytes_per_token == 2 * 2 * 2 * 8 * 4
    told = "\n".join(report.problems)
    assert "model.norm.weight" in told
    assert "lm_head.weight" in told
    assert "tokenizer.json" in told
    (directory / "config.json").write_text("{")
    assert "config.json" in describe(directory).problems[0]


def test_random_weights_repeat_and_differ(config: ModelConfig) -> None:
    one, same, other = (RandomWeights(config, torch.bfloat16, seed) for seed in (1, 1, 2))
    assert set(one) == set(needed_tensors(config))
    for name, shape in needed_tensors(config).items():
        assert tuple(one[name].shape) == shape
        assert one[name].dtype == torch.bfloat16
        assert torch.equal(one[name], same[name])
    assert not torch.equal(one["lm_head.weight"], other["lm_head.weight"])
    assert not torch.equal(one["lm_head.weight"], one["model.embed_tokens.weight"])
