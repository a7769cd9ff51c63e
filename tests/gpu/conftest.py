"""Two devices with the same weights: the oracle on the CPU, and the one on the GPU. None without a GPU, and why."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import NamedTuple

import pytest

from cadenza.kernel.device.flashinfer.device import FlashInferDevice, gpu
from cadenza.kernel.device.flashinfer.kernels import missing
from cadenza.kernel.device.torch_device import TorchDevice
from cadenza.kernel.model.config import ModelConfig
from tests.kernel.device.dense import CONFIG, PARTICULAR, SEED

SHAPE = {"layers": 4, "hidden": 256, "intermediate": 512, "heads": 8, "kv_heads": 2, "head_dim": 64,
         "vocabulary_size": 512}  # fmt: skip
PLAIN = replace(CONFIG, **SHAPE)
ALL_AT_ONCE = replace(PARTICULAR, **SHAPE, windows=(0, 100, 0, 100))
PAGES, PAGE_TOKENS = 2048, 16


class Pair(NamedTuple):
    oracle: TorchDevice
    ours: FlashInferDevice


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    lacks = missing()
    for item in items:
        if "tests/gpu/" in item.path.as_posix():
            item.add_marker(pytest.mark.gpu)
            item.add_marker(pytest.mark.filterwarnings("default"))       # flashinfer's are not ours
            if lacks:
                item.add_marker(pytest.mark.skip(reason=f"needs {' and '.join(lacks)}"))


def pair(config: ModelConfig, graphs: bool = True) -> Pair:
    return Pair(TorchDevice.random(config, pages=PAGES, page_tokens=PAGE_TOKENS, dtype="bfloat16", seed=SEED),
                FlashInferDevice.random(config, pages=PAGES, page_tokens=PAGE_TOKENS, seed=SEED,
                                        hardware=gpu(graphs=graphs)))  # fmt: skip


@pytest.fixture(scope="module", params=[PLAIN, ALL_AT_ONCE], ids=["plain", "all-at-once"])
def devices(request: pytest.FixtureRequest) -> Iterator[Pair]:
    some = pair(request.param)
    with some.oracle, some.ours:
        yield some
