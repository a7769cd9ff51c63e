"""LoRA adapters on TorchDevice against transformers with peft: alone, mixed in one batch, and hostile ones."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from cadenza.kernel.device.batch import PROBE_LOGITS
from cadenza.kernel.device.torch_device import TorchDevice
from cadenza.kernel.model.adapter import ADAPTER_CONFIG, ADAPTER_WEIGHTS, read_adapter
from cadenza.kvfs.errors import CadenzaError, Invalid, LimitExceeded, NotFound, Unsupported
from tests.kernel.model.tiny_adapters import LINEARS, save_tiny_adapter
from tests.kernel.model.tiny_models import TinyModel, save_tiny_model

from .compiled import PATHS, kernels_of
from .driver import Driver, File, Probe, Row, Sampler

TOLERANCE = 1e-4
GREEDY_TOKENS = 48
SETTINGS: list[dict[str, Any]] = [
    {},
    {"r": 2, "lora_alpha": 5, "use_rslora": True, "target_modules": ["q_proj", "v_proj"]},
    {"r": 7, "target_modules": [*LINEARS, "lm_head"], "layers_to_transform": None},
    {"r": 3, "target_modules": ["down_proj", "k_proj"], "layers_to_transform": [1]},
]


class Served:
    """A model with its adapters: slot n holds adapter n; the last reference is the model itself."""

    def __init__(self, directory: Path, name: str) -> None:
        self.model = save_tiny_model(name, directory / "model")
        self.adapters = [save_tiny_adapter(self.model, directory / str(n), n, **settings)
                         for n, settings in enumerate(SETTINGS)]
        self.references: list[TinyModel] = [*self.adapters, self.model]
        self.slots = [*range(len(self.adapters)), -1]


@pytest.fixture(scope="module", params=["llama", "qwen2-tied"])
def served(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Served:
    return Served(tmp_path_factory.mktemp("served"), request.param)


@pytest.fixture(params=PATHS)
def driver(served: Served, request: pytest.FixtureRequest) -> Iterator[Driver]:
    kernels = kernels_of(request.param)
    with TorchDevice(served.model.directory, pages=128, page_tokens=8, threads=1, kernels=kernels) as device:
        for slot, adapter in enumerate(served.adapters):
            device.load_adapter(slot, adapter.directory)
        yield Driver(device)


def prompt_of(length: int, seed: int) -> list[int]:
    return [int(token) for token in np.random.default_rng(seed).integers(3, 160, length)]


def all_probed(file: File, tokens: list[int], slot: int) -> Row:
    return Row(file, tokens, probes=[(n, Probe(PROBE_LOGITS)) for n in range(len(tokens))], adapter=slot)


def test_logits_alone_are_those_of_peft(served: Served, driver: Driver) -> None:
    prompt = prompt_of(29, 1)
    said = []
    for slot, reference in zip(served.slots, served.references, strict=True):
        answer = driver.step([all_probed(File(), prompt, slot)])[0]
        said.append(np.stack([values for values, _ in answer.probes]))
        np.testing.assert_allclose(said[-1], reference.logits(prompt).numpy(), atol=TOLERANCE)
    differences = [np.abs(a - b).max() for n, a in enumerate(said) for b in said[:n]]
    assert min(differences) > 0.5, "each adapter should say something else"


def test_logits_mixed_in_one_batch(served: Served, driver: Driver) -> None:
    """Chunks of many lengths, of every adapter and none, in an order that mixes them."""
    order = [4, 0, 3, 0, 1, 4, 2, 1]
    prompts = [prompt_of(5 + 3 * n, n) for n in range(len(order))]
    files, found = [File() for _ in order], [list[np.ndarray]() for _ in order]
    for first in (0, 4, 12, 13):
        end = {0: 4, 4: 12, 12: 13, 13: 99}[first]
        numbers = [n for n in range(len(order)) if prompts[n][first:end]]
        rows = [all_probed(files[n], prompts[n][first:end], served.slots[order[n]]) for n in numbers]
        for n, answer in zip(numbers, driver.step(rows), strict=True):
            found[n] += [values for values, _ in answer.probes]
    for n, which in enumerate(order):
        expected = served.references[which].logits(prompts[n]).numpy()
        np.testing.assert_allclose(np.stack(found[n]), expected, atol=TOLERANCE)


def test_greedy_tokens_side_by_side(served: Served, driver: Driver) -> None:
    prompt = prompt_of(17, 3)
    files = [File() for _ in served.slots]
    made: list[list[int]] = [[] for _ in files]
    inputs = [prompt for _ in files]
    while len(made[0]) < GREEDY_TOKENS:
        rows = [Row(file, tokens, samples=[(len(tokens) - 1, Sampler(lane=n))], adapter=slot)
                for n, (file, tokens, slot) in enumerate(zip(files, inputs, served.slots, strict=True))]
        for n, answer in enumerate(driver.step(rows)):
            made[n] += answer.tokens
            inputs[n] = [-1 - n]
    assert made == [reference.greedy(prompt, GREEDY_TOKENS) for reference in served.references]


def test_a_slot_is_dropped_and_used_again(served: Served, driver: Driver) -> None:
    device: Any = driver.device
    device.drop_adapter(0)
    device.drop_adapter(0)
    device.load_adapter(0, served.adapters[1].directory)
    prompt = prompt_of(9, 4)
    values = driver.step([Row(File(), prompt, probes=[(8, Probe(PROBE_LOGITS))], adapter=0)])[0].probes[0][0]
    np.testing.assert_allclose(values, served.adapters[1].logits(prompt)[-1].numpy(), atol=TOLERANCE)


# --- other families ---


@pytest.mark.parametrize(("name", "targets"), [
    ("gemma2", LINEARS),
    ("phi3", ["qkv_proj", "o_proj", "gate_up_proj", "down_proj"]),
    ("olmo2", LINEARS),
    ("qwen3-moe-mixed", ["q_proj", "v_proj", "o_proj"]),
    ("gpt-oss", ["q_proj", "k_proj", "v_proj", "o_proj", "lm_head"]),
])  # fmt: skip
def test_adapters_of_other_families(name: str, targets: list[str], tmp_path: Path) -> None:
    model = save_tiny_model(name, tmp_path / "model")
    adapter = save_tiny_adapter(model, tmp_path / "adapter", target_modules=targets)
    prompt = prompt_of(21, 5)
    with TorchDevice(model.directory, pages=16, page_tokens=8, threads=1) as device:
        device.load_adapter(0, adapter.directory)
        rows = [all_probed(File(), prompt, slot) for slot in (0, -1)]
        answers = Driver(device).step(rows)
    for answer, reference in zip(answers, (adapter, model), strict=True):
        found = np.stack([values for values, _ in answer.probes])
        np.testing.assert_allclose(found, reference.logits(prompt).numpy(), atol=TOLERANCE)


# --- what is refused ---


def edited(adapter: TinyModel, directory: Path, edit: Callable[[dict[str, Any], dict[str, Any]], object]) -> Path:
    """A copy of an adapter whose settings and tensors `edit` has changed."""
    shutil.copytree(adapter.directory, directory)
    settings = json.loads((directory / ADAPTER_CONFIG).read_text())
    tensors: dict[str, Any] = load_file(directory / ADAPTER_WEIGHTS)
    edit(settings, tensors)
    (directory / ADAPTER_CONFIG).write_text(json.dumps(settings))
    save_file(tensors, directory / ADAPTER_WEIGHTS)
    return directory


def rename(tensors: dict[str, Any], old: str, new: str) -> None:
    for name in [name for name in tensors if old in name]:
        tensors[name.replace(old, new)] = tensors.pop(name)


Q = "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight"
REFUSED: list[tuple[Callable[[dict[str, Any], dict[str, Any]], object], type[CadenzaError], str]] = [
    (lambda s, t: s.update(peft_type="IA3"), Unsupported, "peft_type is 'IA3'.*q_proj, k_proj"),
    (lambda s, t: s.update(use_dora=True), Unsupported, "use_dora"),
    (lambda s, t: s.update(bias="all"), Unsupported, "bias to 'all'"),
    (lambda s, t: s.update(modules_to_save=["lm_head"]), Unsupported, "modules_to_save"),
    (lambda s, t: s.update(rank_pattern={"q_proj": 2}), Unsupported, "rank_pattern"),
    (lambda s, t: s.update(something_new=1), Unsupported, "something_new"),
    (lambda s, t: s.update(init_lora_weights="pissa_niter_4"), Unsupported, "changes the model"),
    (lambda s, t: s.update(r="4"), Invalid, "r is '4'"),
    (lambda s, t: s.update(r=5), Invalid, "should have rank 5"),
    (lambda s, t: s.update(r=1 << 20), LimitExceeded, "at most 256"),
    (lambda s, t: rename(t, "q_proj", "x_proj"), Unsupported, "x_proj"),
    (lambda s, t: rename(t, "mlp.up_proj", "mlp.experts.0.up_proj"), Unsupported, "not on experts"),
    (lambda s, t: rename(t, "q_proj", "qkv_proj"), Invalid, "of another model.*no model.layers.0.self_attn.qkv_proj"),
    (lambda s, t: rename(t, "lora_B", "base_layer"), Unsupported, "save_embedding_layers=False"),
    (lambda s, t: rename(t, "layers.0", "layers.7"), Invalid, "of another model.*no model.layers.7"),
    (lambda s, t: t.update({Q: torch.zeros(4, 33)}), Invalid, r"of another model.*is \[32, 32\].*\[32, 33\]"),
    (lambda s, t: t.pop(Q), Invalid, "only one of A and B"),
    (lambda s, t: t.update({Q: torch.zeros(4, 32, dtype=torch.int32)}), Unsupported, "I32"),
    (lambda s, t: t.update({Q: torch.full((4, 32), torch.nan)}), Invalid, "not finite"),
]


@pytest.mark.parametrize("number", range(len(REFUSED)))
def test_what_is_not_served_is_named(number: int, served: Served, driver: Driver, tmp_path: Path) -> None:
    edit, error, message = REFUSED[number]
    device: Any = driver.device
    with pytest.raises(error, match=message):
        device.load_adapter(9, edited(served.adapters[0], tmp_path / "adapter", edit))


def test_pickled_and_absent_weights(served: Served, tmp_path: Path) -> None:
    directory = edited(served.adapters[0], tmp_path / "adapter", lambda s, t: None)
    (directory / ADAPTER_WEIGHTS).rename(directory / "adapter_model.bin")
    with pytest.raises(Unsupported, match="pickled"):
        read_adapter(directory)
    (directory / "adapter_model.bin").unlink()
    with pytest.raises(NotFound):
        read_adapter(directory)


@pytest.mark.parametrize("where", ["v_proj", "lm_head"])
def test_an_overflowing_adapter_fails_its_own_row_alone(
    where: str, served: Served, driver: Driver, tmp_path: Path
) -> None:
    def swell(settings: dict[str, Any], tensors: dict[str, Any]) -> None:
        for name in [name for name in tensors if where in name]:
            tensors[name] *= 1e30

    device: Any = driver.device
    device.load_adapter(9, edited(served.adapters[2], tmp_path / "adapter", swell))
    prompts = [prompt_of(12, n) for n in range(3)]
    files = [File() for _ in prompts]
    for first in (0, 6):
        rows = [all_probed(file, prompt[first : first + 6], slot)
                for file, prompt, slot in zip(files, prompts, (0, 9, -1), strict=True)]
        result = device.step(driver.batch(rows, []))
        assert result.failed_rows.tolist() == [1]
        answers = driver.answers(rows, result)
        for n, reference in ((0, served.adapters[0]), (2, served.model)):
            found = np.stack([values for values, _ in answers[n].probes])
            np.testing.assert_allclose(found, reference.logits(prompts[n])[first : first + 6].numpy(), atol=TOLERANCE)
    assert np.isfinite(np.stack([values for values, _ in answers[1].probes])).all()
