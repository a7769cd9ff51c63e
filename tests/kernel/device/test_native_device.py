"""The device on compiled kernels against torch alone: the same within the rounding of what is held narrow."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from cadenza.kernel.device.batch import PROBE_LOGITS
from cadenza.kernel.device.torch_device import TorchDevice
from cadenza.kernel.model.config import ModelConfig
from cadenza.kernel.model.decoder import Begun
from cadenza.kernel.model.linear import QuantisedLinear, multiplies_bfloat16
from cadenza.kernel.model.native import NarrowLinear, NativeInt8Linear, NativeLinear, NativeOperations, Scratch
from cadenza.kernel.model.recordings import Recordings, Watch
from cadenza.kernel.model.rope import Rotation
from cadenza.kernel.model.weights import RandomWeights
from cadenza.kernel.native.build import library
from cadenza.kernel.native.library_unsafe import Kernels
from cadenza.kvfs.errors import Unsupported

from .compiled import kernels_of
from .dense import CONFIG, PARTICULAR
from .driver import Driver, File, Probe, Row, Sampler

PAGES = 200


@pytest.fixture(scope="module")
def kernels() -> Kernels:
    found = kernels_of("compiled")
    assert found is not None
    return found


def device(config: ModelConfig, dtype: str, kernels: Kernels | None) -> TorchDevice:
    """Weights are what bfloat16 can say, whatever they are held as."""
    made = {name: tensor.to(torch.bfloat16) for name, tensor in RandomWeights(config, torch.float32, 5).items()}
    return TorchDevice((config, made), pages=PAGES, page_tokens=4, dtype=dtype, threads=1, kernels=kernels)


def logits(driver: Driver, rows: list[Row]) -> np.ndarray:
    for row in rows:
        row.probes = [(token, Probe(PROBE_LOGITS)) for token in range(len(row.tokens))]
    return np.stack([values for answer in driver.step(rows) for values, _ in answer.probes])


def scene(driver: Driver) -> np.ndarray:
    """A prompt in chunks, a fork, decodes beside a prefill, a tree by ranges, a part read elsewhere."""
    random = np.random.default_rng(2)

    def some(count: int) -> list[int]:
        return [int(token) for token in random.integers(0, CONFIG.vocabulary_size, count)]

    first, second, part, copies = File(), File(), File(), []
    found = [logits(driver, [Row(first, some(70)), Row(part, some(9))])]
    found.append(logits(driver, [Row(first, some(23)), Row(second, some(1))]))
    twin = driver.fork(first, copies)
    driver.step([], copies)
    found.append(logits(driver, [Row(first, some(1)), Row(twin, some(1)), Row(second, some(40))]))
    tree = [(0, 0, 200), (1, 0, 94), (1, 95, 1), (2, 0, 95), (2, 96, 1)]
    found.append(logits(driver, [Row(first, some(3), positions=[94, 95, 95], contiguous=False, visible=tree)]))
    shifted = Row(File(), some(6), [part, second], list(range(60, 66)), contiguous=False, shifts=[11, -1])
    found.append(logits(driver, [shifted, Row(twin, some(1))]))
    return np.concatenate(found)


ODD = replace(CONFIG, hidden=37, intermediate=51, heads=6, kv_heads=1, head_dim=10, vocabulary_size=64)
WIDE = replace(CONFIG, heads=9, kv_heads=3, head_dim=80, qkv_bias=True, activation="gelu_tanh", norm_after=True)


@pytest.mark.parametrize("config", [CONFIG, PARTICULAR, ODD, WIDE], ids=["plain", "particular", "odd", "wide"])
def test_bfloat16_is_the_oracle_but_for_what_it_holds(config: ModelConfig, kernels: Kernels) -> None:
    with device(config, "float32", None) as oracle, device(config, "bfloat16", kernels) as native:
        expected, found = scene(Driver(oracle)), scene(Driver(native))
    assert np.abs(expected).max() > 1
    assert np.abs(found - expected).max() < 0.03 * np.abs(expected).max()


@pytest.mark.parametrize("config", [CONFIG, PARTICULAR, ODD, WIDE], ids=["plain", "particular", "odd", "wide"])
def test_float32_loses_nothing(config: ModelConfig, kernels: Kernels) -> None:
    with device(config, "float32", None) as oracle, device(config, "float32", kernels) as native:
        expected, found = scene(Driver(oracle)), scene(Driver(native))
    assert np.abs(found - expected).max() < 1e-5 * np.abs(expected).max()


def test_float32_reads_bfloat16_where_that_is_all_there_is(kernels: Kernels) -> None:
    weight = torch.randn(8, 8, generator=torch.Generator().manual_seed(1))
    operations = NativeOperations("float32", kernels)
    assert isinstance(operations.linear(weight.to(torch.bfloat16).float()), NativeLinear)
    finer = operations.linear(weight)
    assert not isinstance(finer, NativeLinear)
    assert torch.equal(finer(torch.eye(8)).T, weight)


@pytest.mark.parametrize("config", [CONFIG, PARTICULAR], ids=["plain", "particular"])
def test_int8_is_the_oracle_with_the_same_weights(config: ModelConfig, kernels: Kernels) -> None:
    with device(config, "int8", None) as oracle, device(config, "int8", kernels) as native:
        expected, found = scene(Driver(oracle)), scene(Driver(native))
    assert np.abs(found - expected).max() < 0.06 * np.abs(expected).max()


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("rows", [1, 2, 3, 5, 6, 7, 13, 50, 200])
@pytest.mark.parametrize(("width", "count"), [(7, 3), (64, 64), (600, 33), (1025, 130)])
def test_linear_maps_of_any_size(kernels: Kernels, threads: int, rows: int, width: int, count: int) -> None:
    generator = torch.Generator().manual_seed(rows)
    weight = torch.randn(count, width, generator=generator).to(torch.bfloat16)
    bias, x = torch.randn(count, generator=generator), torch.randn(rows, width, generator=generator)
    exact = x.double() @ weight.double().T + bias
    kernels.use_threads(threads)
    try:
        narrow = NativeLinear(weight, bias, kernels, Scratch())(x)
        bytewise = NativeInt8Linear(weight, bias, kernels, Scratch())(x)
    finally:
        kernels.use_threads(1)
    torch.testing.assert_close(narrow.double(), exact, atol=1e-3, rtol=1e-4)
    torch.testing.assert_close(bytewise, QuantisedLinear(weight, bias)(x), atol=2e-3 * width**0.5, rtol=1e-3)


def test_a_linear_map_keeps_what_is_not_finite(kernels: Kernels) -> None:
    x = torch.ones(2, 8)
    x[1, 3] = torch.nan
    for kind in (NativeLinear, NativeInt8Linear):
        y = kind(torch.ones(4, 8), None, kernels, Scratch())(x)
        assert torch.isfinite(y[0]).all()
        assert not torch.isfinite(y[1]).any()


# --- whatever shares the step: the same to the last bit ---


@pytest.mark.parametrize("kind", [NativeLinear, NativeInt8Linear])
@pytest.mark.parametrize(("width", "count"), [(7, 3), (600, 133), (1025, 70)])
def test_a_row_of_a_linear_map_does_not_depend_on_how_many_there_are(
    kernels: Kernels, kind: type[NativeLinear | NativeInt8Linear], width: int, count: int
) -> None:
    generator = torch.Generator().manual_seed(width)
    weight = torch.randn(count, width, generator=generator).to(torch.bfloat16)
    made = kind(weight, torch.randn(count, generator=generator), kernels, Scratch())
    x = torch.randn(40, width, generator=generator)
    one_by_one = torch.cat([made(row[None]).clone() for row in x])
    for rows in (2, 3, 4, 5, 6, 7, 11, 12, 13, 24, 25, 40):
        assert torch.equal(made(x[:rows]), one_by_one[:rows]), rows


def in_chunks(driver: Driver, text: list[int], first: int) -> np.ndarray:
    """Logits behind each token from `first` on: in chunks of one to nine, beside other rows."""
    file, random, found = File(), np.random.default_rng(4), []
    logits(driver, [Row(File(), [3, 1]), Row(file, text[:first])])
    while first < len(text):
        chunk = text[first : first + int(random.integers(1, 10))]
        others = [Row(File(), [1] * int(random.integers(1, 12))) for _ in range(int(random.integers(0, 4)))]
        found.append(logits(driver, [*others, Row(file, chunk)])[-len(chunk) :])
        first += len(chunk)
    return np.concatenate(found)


def in_a_draft(driver: Driver, text: list[int], first: int) -> np.ndarray:
    """The same in one pass: each token among three drafted ones, the others wrong and with drafts of their own."""
    file, random = File(), np.random.default_rng(5)
    driver.step([Row(file, text[:first])])
    tokens, parents, right = [text[first]], [0], [0]
    for token in text[first + 1 :]:
        place = int(random.integers(3))
        for sibling in range(3):
            tokens.append(token if sibling == place else int(random.integers(CONFIG.vocabulary_size)))
            parents.append(right[-1] if sibling == place or not random.integers(2) else len(tokens) - 2)
        right.append(len(tokens) - 3 + place)
    ways = [[0]]
    for number in range(1, len(tokens)):
        ways.append([*ways[parents[number]], number])
    visible = [(number, 0, first) for number in range(len(tokens))]
    visible += [(number, first + each, 1) for number, way in enumerate(ways) for each in way]
    row = Row(file, tokens, positions=[first + len(way) - 1 for way in ways], contiguous=False, visible=visible)
    return logits(driver, [Row(File(), [2, 3]), row])[2:][right]


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("dtype", ["bfloat16", "float32", "int8"])
@pytest.mark.parametrize("config", [CONFIG, PARTICULAR, WIDE], ids=["plain", "particular", "wide"])
def test_logits_do_not_depend_on_what_shares_the_step(
    kernels: Kernels, config: ModelConfig, dtype: str, threads: int
) -> None:
    if dtype == "bfloat16" and multiplies_bfloat16():
        pytest.skip("this CPU multiplies bfloat16 itself: those maps are oneDNN's")
    text = [int(token) for token in np.random.default_rng(3).integers(0, config.vocabulary_size, 100)]
    with device(config, dtype, kernels) as native:
        kernels.use_threads(threads)
        driver, file = Driver(native), File()
        driver.step([Row(file, text[:60])])
        decoded = np.concatenate([logits(driver, [Row(file, [token])]) for token in text[60:]])
        whole = logits(driver, [Row(File(), text)])[60:]
        chunked, drafted = in_chunks(driver, text, 60), in_a_draft(driver, text, 60)
    kernels.use_threads(1)
    for found in (whole, chunked, drafted):
        assert np.array_equal(found, decoded)


@pytest.mark.parametrize("dtype", ["bfloat16", "float32", "int8"])
def test_a_decode_allocates_nothing_that_grows_with_the_model(kernels: Kernels, dtype: str) -> None:
    """Layers work in memory that is there; torch is asked for the same few things, however many they are."""
    if dtype == "bfloat16" and multiplies_bfloat16():
        pytest.skip("this CPU multiplies bfloat16 itself: those maps are oneDNN's")
    counted = []
    for layers in (1, 5):
        with device(replace(CONFIG, layers=layers), dtype, kernels) as native:
            driver, files = Driver(native), [File() for _ in range(8)]
            driver.step([Row(file, [number, 1, 2]) for number, file in enumerate(files)])
            for _ in range(3):
                driver.step([Row(file, [-1], samples=[(0, Sampler(lane=number))]) for number, file in enumerate(files)])
            operations = native._operations
            assert isinstance(operations, NativeOperations)
            grown = operations.scratch.grown
            with Watch() as watch:  # type: ignore[no-untyped-call]
                for _ in range(10):
                    driver.step([Row(file, [-1], samples=[(0, Sampler(lane=n))]) for n, file in enumerate(files)])
            assert operations.scratch.grown == grown, "the memory of a step has grown"
            counted.append(watch.computed)
    assert counted[0] == counted[1] <= 10 * 10


@pytest.mark.skipif(not multiplies_bfloat16(), reason="this CPU does not multiply bfloat16 itself")
def test_where_the_cpu_multiplies_bfloat16_its_maps_do() -> None:
    generator = torch.Generator().manual_seed(1)
    weight, bias = (torch.randn(*shape, generator=generator).to(torch.bfloat16) for shape in ((48, 64), (48,)))
    x = torch.randn(5, 64, generator=generator)
    exact = x.to(torch.bfloat16).double() @ weight.double().T + bias.double()
    torch.testing.assert_close(NarrowLinear(weight, bias)(x).double(), exact, atol=0.1, rtol=1e-2)


def test_greedy_tokens_do_not_depend_on_the_batch_or_on_threads(kernels: Kernels) -> None:
    made = []
    for others, threads in ((0, 1), (12, 3)):
        with device(CONFIG, "bfloat16", kernels) as native:
            kernels.use_threads(threads)
            driver, file = Driver(native), File()
            strangers = [File() for _ in range(others)]
            tokens = driver.step([Row(file, list(range(30)), samples=[(29, Sampler(lane=0))]),
                                  *(Row(one, [3, n]) for n, one in enumerate(strangers))])[0].tokens
            for _ in range(20):
                rows = [Row(file, [-1], samples=[(0, Sampler(lane=0))]), *(Row(one, [5]) for one in strangers)]
                tokens += driver.step(rows)[0].tokens
            made.append(tokens)
    kernels.use_threads(1)
    assert made[0] == made[1]


@pytest.mark.parametrize("config", [CONFIG, PARTICULAR, WIDE], ids=["plain", "particular", "wide"])
def test_steps_that_are_replayed_are_the_oracle_too(config: ModelConfig, kernels: Kernels) -> None:
    """Decodes of two files, between which the memory of a step grows, and then one row of two tokens."""
    random = np.random.default_rng(7)
    prompts = [[int(token) for token in random.integers(0, config.vocabulary_size, count)] for count in (30, 61, 80)]
    found = []
    for dtype, path in (("float32", None), ("bfloat16", kernels)):
        with device(config, dtype, path) as computed:
            driver, files = Driver(computed), [File(), File(), File()]
            driver.step([Row(files[0], prompts[0]), Row(files[1], prompts[1])])
            steps = [logits(driver, [Row(files[0], [n]), Row(files[1], [n + 1])]) for n in range(4)]
            driver.step([Row(files[2], prompts[2])])
            steps += [logits(driver, [Row(files[1], [n]), Row(files[2], [n + 1])]) for n in range(4)]
            steps += [logits(driver, [Row(files[1], [n, n + 3])]) for n in range(4)]
            found.append(np.concatenate(steps))
    expected, replayed = found
    assert np.abs(replayed - expected).max() < 0.03 * np.abs(expected).max()


# --- recording ---


def test_what_was_recorded_is_done_again_by_kernels_alone(kernels: Kernels) -> None:
    operations = NativeOperations("bfloat16", kernels)
    recordings, norm = Recordings(operations), operations.norm(torch.ones(8), 1e-6)
    asked = []

    def layers(begun: Begun) -> tuple[torch.Tensor, torch.Tensor]:
        asked.append("kernels")
        return norm.after(begun.x, None)

    def by_torch(begun: Begun) -> tuple[torch.Tensor, torch.Tensor]:
        asked.append("torch")
        return norm.after(begun.x + 1, None)

    def begun(value: float) -> Begun:
        angles = Rotation(torch.zeros(2, 1, 4), torch.zeros(2, 1, 4))
        return Begun(torch.tensor([[value] * 8, [1.0, -value] * 4]), angles, angles)

    for act, key in ((layers, (2, 1)), (by_torch, (2, 2))):
        for value in (3.0, 5.0, 7.0, 9.0):
            x = begun(value).x + (act is by_torch)
            expected = x / (x.square().mean(1, keepdim=True) + 1e-6).sqrt()
            torch.testing.assert_close(recordings(key, begun(value), act)[1], expected)
    assert asked.count("torch") == 4
    assert asked.count("kernels") <= 2, "the first may find that its memory has to grow"


# --- compiling ---


def test_a_second_process_does_not_compile(tmp_path: Path) -> None:
    made = library(tmp_path)
    before = made.stat()
    ask = ("import sys, pathlib; from cadenza.kernel.native.build import library; "
           "print(library(pathlib.Path(sys.argv[1])))")
    done = subprocess.run([sys.executable, "-c", ask, tmp_path], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == str(made)
    after = made.stat()
    assert (before.st_ino, before.st_mtime_ns) == (after.st_ino, after.st_mtime_ns)
    assert [path.name for path in made.parent.iterdir()] == [made.name], "nothing is left lying about"


@pytest.mark.parametrize(("compiler", "said"), [("no-such-compiler", "cannot be run"), ("false", "failed")])
def test_without_a_working_compiler_it_says_why(tmp_path: Path, compiler: str, said: str) -> None:
    with pytest.raises(Unsupported, match=said):
        library(tmp_path, [compiler])


@pytest.mark.parametrize(("compiler", "path"), [("false", "torch cpu float32"), ("", "compiled")])
def test_a_device_says_by_which_path_it_computes(tmp_path: Path, compiler: str, path: str) -> None:
    build = ("import sys; from cadenza.kernel.device.kinds import TorchConfig; "
             "config = TorchConfig(pages=2, cache=sys.argv[1], threads=1, shape=eval(sys.argv[2])); "
             "print(config.build(lambda what, fraction: None).facts.name)")
    shape = {"model_type": "llama", "vocab_size": 64, "hidden_size": 32, "intermediate_size": 48,
             "num_hidden_layers": 1, "num_attention_heads": 4, "max_position_embeddings": 64}
    environment = {**os.environ, **({"CC": compiler} if compiler else {})}
    done = subprocess.run([sys.executable, "-c", build, tmp_path, repr(shape)], capture_output=True, text=True,
                          check=True, env=environment)  # fmt: skip
    assert done.stdout.startswith(path)
    assert ("torch computes alone" in done.stderr) == bool(compiler)


def test_what_is_no_library_is_refused(tmp_path: Path) -> None:
    (tmp_path / "kernels.so").write_bytes(b"not one")
    with pytest.raises(Unsupported, match="cannot be loaded"):
        Kernels(tmp_path / "kernels.so")
