"""What steps cost on this device: measured at boot, and learnt from every step since.

    seconds of a step ≈ fixed + per_token · max(0, tokens − saturation)

Up to `saturation` tokens a step takes as long as one of a single token (InferCept, arXiv 2402.01869, section 4.1, calls
it the saturation point of the device). Moving a page takes `page_seconds`, beside a step's computing.
"""

from __future__ import annotations

from dataclasses import dataclass

LEAST_SATURATION = 64                 # tokens


@dataclass(slots=True)
class Costs:
    """The device's constants, in seconds and tokens. The initial ones are guesses that `measured` replaces."""

    fixed: float = 0.02
    per_token: float = 1e-4
    saturation: int = 256
    page_seconds: float = 2e-4

    @property
    def beside_decodes(self) -> int:
        """Tokens of a step in which somebody decodes: those that cost nothing; where there are next to none, on a CPU,
        those that make it three times as long."""
        if self.saturation >= LEAST_SATURATION or self.per_token <= 0:
            return max(1, self.saturation)
        return max(1, self.saturation + int(2 * self.fixed / self.per_token))

    def forward(self, tokens: int) -> float:
        """Seconds of a step of `tokens`."""
        return self.fixed + self.per_token * max(0, tokens - self.saturation)

    def pages_within(self, seconds: float) -> int:
        """How many pages can be moved meanwhile."""
        return int(seconds / self.page_seconds) if self.page_seconds > 0 else 1 << 30


def fitted(steps: list[tuple[int, float]], page_seconds: float) -> Costs:
    """Constants that fit steps of (tokens, seconds), at least two, from one token upwards. The slope is that
    between the two longest; saturation is where it would reach the shortest."""
    ordered = sorted(steps)
    (_, fixed), ((fewer, short), (more, long)) = ordered[0], ordered[-2:]
    per_token = (long - short) / (more - fewer)
    if per_token <= 0:
        return Costs(fixed, 0.0, more, page_seconds)
    return Costs(fixed, per_token, max(0, round(more - (long - fixed) / per_token)), page_seconds)
