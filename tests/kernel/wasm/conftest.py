"""One cache of compiled guests for all tests of the runtime."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from cadenza.kernel.wasm.fiber_unsafe import living


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("wasm") / "cache"


@pytest.fixture(autouse=True)
def every_fiber_is_closed() -> Iterator[None]:
    """The recount: whatever a test does to its guests, none is left."""
    before = living()
    yield
    assert living() == before
