"""`Breadth`: what a pass asks of its step beyond a plain row."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from cadenza.kernel.limits import (
    PASS_PROBE_VALUES,
    PASS_PROBES,
    PASS_READS,
    PASS_SAMPLES,
    PASS_TOLD_TOKENS,
    VISIBLE_RANGES,
)

if TYPE_CHECKING:
    from cadenza.kvfs.file import File


class Breadth(NamedTuple):
    """What a pass asks of its step beyond a plain row with one sample. A step has room for what one pass may ask."""

    samples: int = 0
    probes: int = 0
    values: int = 0              # numbers that its probes answer, or tokens that they name
    ranges: int = 0
    reads: int = 0               # segments
    told: int = 0                # tokens of biases, and of histories

    def plus(self, other: Breadth) -> Breadth:
        return Breadth(*(a + b for a, b in zip(self, other, strict=True)))

    def within(self, other: Breadth) -> bool:
        return all(a <= b for a, b in zip(self, other, strict=True))


STEP_BREADTH = Breadth(PASS_SAMPLES, PASS_PROBES, PASS_PROBE_VALUES, VISIBLE_RANGES, PASS_READS, PASS_TOLD_TOKENS)
PLAIN = Breadth()


def segments_read(file: File, reads: Sequence[File]) -> int:
    """How many segments a pass reads beside the tail of its own file."""
    return sum(len(read.segments()) for read in reads) + len(file.parts)
