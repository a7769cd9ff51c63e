"""What narrow weights may cost the bundled model."""

from __future__ import annotations

import asyncio

from benchmarks.precision import measure


def test_narrow_weights_say_nearly_the_same() -> None:
    figures = asyncio.run(measure(True))
    assert figures["tokens"] > 500
    assert figures["bfloat16_same"] > 0.99
    assert figures["int8_same"] > 0.98
    assert figures["bfloat16_divergence"] < 0.001
    assert figures["int8_divergence"] < 0.01
    assert 0 < figures["bfloat16_error"] < figures["int8_error"] < 0.05 * figures["deviation"]
