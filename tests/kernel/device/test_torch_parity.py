"""TorchDevice against transformers: each family, in one piece or chunked, alone or batched with strangers."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from safetensors.torch import load_file

from cadenza.kernel.device.batch import PROBE_HIDDEN, PROBE_LOGITS
from cadenza.kernel.device.torch_device import TorchDevice
from cadenza.kernel.model.config import ModelConfig
from tests.kernel.model.tiny_models import NAMES, TinyModel, save_tiny_model

from .compiled import PATHS, kernels_of
from .driver import Driver, File, Probe, Row, Sampler

TOLERANCE = 1e-4
GREEDY_TOKENS = 64


@pytest.fixture(scope="module", params=NAMES)
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> TinyModel:
    several_files = "tied" in request.param
    return save_tiny_model(request.param, tmp_path_factory.mktemp("model"), 20_000 if several_files else 1 << 30)


@pytest.fixture(params=PATHS)
def driver(model: TinyModel, request: pytest.FixtureRequest) -> Iterator[Driver]:
    kernels = kernels_of(request.param)
    with TorchDevice(model.directory, pages=128, page_tokens=8, threads=1, kernels=kernels) as device:
        yield Driver(device)


def prompt_of(length: int, seed: int) -> list[int]:
    return [int(token) for token in np.random.default_rng(seed).integers(3, 160, length)]


def logits_of(driver: Driver, prompt: list[int], chunk: int) -> np.ndarray:
    """Of every token of the prompt, [tokens, vocabulary]."""
    file, logits = File(), []
    for first in range(0, len(prompt), chunk):
        part = prompt[first : first + chunk]
        probes = [(token, Probe(PROBE_LOGITS)) for token in range(len(part))]
        logits += [values for values, _ in driver.step([Row(file, part, probes=probes)])[0].probes]
    return np.stack(logits)


@pytest.mark.parametrize("chunk", [100, 7, 1])
def test_logits_are_those_of_transformers(model: TinyModel, driver: Driver, chunk: int) -> None:
    prompt = prompt_of(45, 1)
    expected = model.logits(prompt).numpy()
    np.testing.assert_allclose(logits_of(driver, prompt, chunk), expected, atol=TOLERANCE)
    assert np.abs(expected).max() > 1, "the reference should say something"


def test_hidden_states_are_those_of_transformers(model: TinyModel, driver: Driver) -> None:
    prompt = prompt_of(19, 3)
    probes = [(token, Probe(PROBE_HIDDEN)) for token in range(19)] + [(4, Probe(PROBE_LOGITS))]
    *states, logits = [values for values, _ in driver.step([Row(File(), prompt, probes=probes)])[0].probes]
    expected = model.states(prompt).numpy()
    np.testing.assert_allclose(np.stack(states), expected, atol=TOLERANCE)
    np.testing.assert_allclose(logits, model.logits(prompt)[4].numpy(), atol=TOLERANCE)
    assert np.abs(expected).max() > 1, "the reference should say something"


def test_greedy_tokens_alone(model: TinyModel, driver: Driver) -> None:
    prompt = prompt_of(21, 2)
    file = File()
    made = driver.step([Row(file, prompt, samples=[(20, Sampler(lane=5))])])[0].tokens
    while len(made) < GREEDY_TOKENS:
        made += driver.step([Row(file, [-6], samples=[(0, Sampler(lane=5))])])[0].tokens
    assert made == model.chosen(prompt, made)
    assert len(set(made)) > 3, "the reference should say something"


def test_greedy_tokens_batched_with_strangers(model: TinyModel, driver: Driver) -> None:
    """Rows of many lengths begin at different steps; their prompts are chunked beside others' decodes."""
    prompts = [prompt_of(length, length) for length in (1, 9, 30, 61)]
    files, left = [File() for _ in prompts], [list(prompt) for prompt in prompts]
    made: list[list[int]] = [[] for _ in prompts]
    step = 0
    while min(len(tokens) for tokens in made) < GREEDY_TOKENS:
        step += 1
        rows, owners = [], []
        for number in range(len(prompts)):
            if step <= 3 * number:
                continue
            tokens = left[number][:8] if left[number] else [-1 - number]
            left[number] = left[number][8:]
            samples = [] if left[number] else [(len(tokens) - 1, Sampler(lane=number))]
            rows.append(Row(files[number], tokens, samples=samples))
            owners.append(number)
        for number, answer in zip(owners, driver.step(rows), strict=True):
            made[number] += answer.tokens
    for prompt, tokens in zip(prompts, made, strict=True):
        assert tokens == model.chosen(prompt, tokens)


def test_bfloat16_is_near(model: TinyModel) -> None:
    prompt = prompt_of(30, 3)
    with TorchDevice(model.directory, pages=16, page_tokens=8, dtype="bfloat16", threads=1) as device:
        found = logits_of(Driver(device), prompt, 11)
    expected = model.logits(prompt).numpy()
    assert np.linalg.norm(found - expected) < 0.05 * np.linalg.norm(expected)


def test_weights_given_as_tensors_are_those_of_the_directory(model: TinyModel, driver: Driver) -> None:
    files = [load_file(file) for file in sorted(model.directory.glob("*.safetensors"))]
    given = (ModelConfig.from_directory(model.directory), {name: one for some in files for name, one in some.items()})
    with TorchDevice(given, pages=16, page_tokens=8) as device:
        prompt = prompt_of(20, 4)
        np.testing.assert_allclose(logits_of(Driver(device), prompt, 20), logits_of(driver, prompt, 20), atol=TOLERANCE)
