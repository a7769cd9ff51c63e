"""What boot does to the process that it runs in."""

from __future__ import annotations

import gc

from cadenza.server.boot import collect_seldom
from cadenza.server.limits import COLLECT_OBJECTS


def test_what_is_loaded_is_not_looked_at_again_and_the_rest_seldom() -> None:
    before = gc.get_threshold()
    try:
        collect_seldom()
        assert gc.get_freeze_count() > 10_000                  # modules, classes, functions
        assert gc.get_threshold()[0] == COLLECT_OBJECTS
        garbage = [[] for _ in range(100)]
        garbage.append(garbage)
        del garbage
        assert gc.collect() > 0                                # what comes later is still found
    finally:
        gc.unfreeze()
        gc.set_threshold(*before)
