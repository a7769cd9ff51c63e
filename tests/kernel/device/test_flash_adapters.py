"""LoRA adapters on FlashInferDevice, on kernels that stand in for flashinfer's: what is asked of TorchDevice."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from cadenza.kernel.device.flashinfer.decodes import as_it_is
from cadenza.kernel.device.flashinfer.device import FlashInferDevice

from .driver import Driver
from .reference_kernels import reference_hardware
from .test_torch_adapters import (
    Served,
    test_a_slot_is_dropped_and_used_again,
    test_an_overflowing_adapter_fails_its_own_row_alone,
    test_logits_mixed_in_one_batch,
)

__all__ = [  # the same tests, with the driver below
    "test_a_slot_is_dropped_and_used_again", "test_an_overflowing_adapter_fails_its_own_row_alone",
    "test_logits_mixed_in_one_batch",
]  # fmt: skip


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Served:
    return Served(tmp_path_factory.mktemp("served"), "qwen2-tied")


@pytest.fixture
def driver(served: Served) -> Iterator[Driver]:
    hardware = reference_hardware(as_it_is)
    with FlashInferDevice(served.model.directory, pages=128, page_tokens=8, hardware=hardware) as device:
        for slot, adapter in enumerate(served.adapters):
            device.load_adapter(slot, adapter.directory)
        yield Driver(device)
