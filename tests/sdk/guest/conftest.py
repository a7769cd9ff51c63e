"""The guest SDK on the machine that tests it: over the toy kernel in `fake`, on the SDK's own event loop."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).with_name("fake")))     # where `wit_world` is found


@pytest.fixture
def toy() -> Iterator[Any]:
    """The state of the toy kernel, new for each test."""
    from wit_world.toy import Toy, toy

    from cadenza.sdk.guest.cadenza import channel, model

    model.facts.cache_clear()
    channel.messages.cache_clear()
    vars(toy).update(vars(Toy()))
    yield toy
    assert not toy.busy, "a file is still being written to"
