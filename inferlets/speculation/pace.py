"""The pace: how large a draft pays, from what was accepted lately and what a pass takes here and now.

    tokens a second with a draft of n     (1 + p₁ + … + pₙ) / (t₀ + n·t₁)        against     1 / t of plain decoding

pᵢ is how often the i-th token of a draft was accepted; t₀ and t₁ are fitted to the passes of late, and t is the time
between tokens of the plain decoding of late. All of them follow the device, and how full its batches are, by moving
averages. While no draft pays, decoding is plain; what would have been drafted is still compared with what is said, and
that costs no pass; and now and then a pass is spent to see what one takes.

A program that verifies goes on only when a pass has come back, one that decodes is submitted ahead; to change from one
to the other takes both some steps. So drafts that are only compared change the averages slowly: nobody begins to verify
because he was lucky once. And a plain run lasts as long as no draft pays, and then gives way.
"""

from __future__ import annotations

MOST = 24                  # tokens of a draft
RATE = 0.25                # of the moving averages
COMPARED_RATE = 0.2        # of drafts that were only compared
FIRST_PLAIN = 12           # tokens decoded plainly where nothing is found to draft, twice as many the next time
UNTIL_PAID = 1 << 30       # where no draft pays: until one would have
PROBE_TOKENS = 512         # decoded plainly, after which a pass is tried though none seems to pay
FURTHER = 2                # tokens drafted beyond those that are known to pay: to see whether they do
GAIN = 1.2                 # a draft must be so much faster: passes of many rows hold up neighbours too
DEAR = 1.5, 0.03           # what a pass takes, t₀ and t₁, in times of plain decoding, until one has been measured


class Fit:
    """A line through what was measured, older points counting less."""

    def __init__(self, base: float, slope: float) -> None:
        self._weight, self._x, self._y, self._xx, self._xy = 0.0, 0.0, 0.0, 0.0, 0.0
        self.base, self.slope = base, slope
        for n in (0, MOST):
            self.add(n, base + slope * n)

    def add(self, n: int, value: float) -> None:
        keep = 1.0 - RATE / 2
        self._weight = self._weight * keep + 1.0
        self._x, self._y = self._x * keep + n, self._y * keep + value
        self._xx, self._xy = self._xx * keep + n * n, self._xy * keep + n * value
        x, y = self._x / self._weight, self._y / self._weight
        spread = self._xx / self._weight - x * x
        if spread > 0.25:
            self.slope = min(max(0.0, (self._xy / self._weight - x * y) / spread), y / max(x, 1.0))
        self.base = max(y - self.slope * x, 0.0)


class Pace:
    """Kept by one `Speculation`, over all its generations."""

    def __init__(self, most: int = MOST) -> None:
        self.most = most
        self.plain_seconds = 0.0                     # a token; 0: not known yet
        self._accepted = [0.0] * most
        self._passes: Fit | None = None
        self._plain = FIRST_PLAIN
        self._since_pass = 0

    def size(self) -> int:
        """Of the next draft; 0: decode plainly."""
        if not self.plain_seconds:
            return 0
        passes = self._passes or self._dear()
        best, size, tokens = GAIN / self.plain_seconds, 0, 1.0
        base, slope = passes.base, passes.slope
        for n, chance in enumerate(self._accepted, 1):
            tokens += chance
            rate = tokens / (base + slope * n)
            if rate > best:
                best, size = rate, n
        if not size and self._since_pass >= PROBE_TOKENS and self._accepted[0] > 0.3:
            size = 4
        return min(size + FURTHER, self.most) if size else 0

    @property
    def fitted(self) -> tuple[float, float]:
        """t₀ and t₁, in seconds; zeros, as long as nothing is known."""
        return (self._passes.base, self._passes.slope) if self._passes is not None else (0.0, 0.0)

    def plain_tokens(self) -> int:
        """How many are decoded plainly now."""
        if not self.size():
            return UNTIL_PAID
        now, self._plain = self._plain, self._plain * 2
        return now

    def drafted(self, size: int, way: list[int], rate: float = RATE) -> None:
        """Of a draft of that size, tokens `way`, from 1 on, came to pass."""
        came, accepted = set(way), self._accepted
        for n in range(min(size, self.most)):
            accepted[n] += rate * ((n + 1 in came) - accepted[n])

    def passed(self, size: int, seconds: float) -> None:
        """A pass of a draft of that size took so long."""
        self._passes = self._passes or self._dear()
        self._passes.add(size, seconds)
        self._plain, self._since_pass = FIRST_PLAIN, 0

    def _dear(self) -> Fit:
        return Fit(*(each * self.plain_seconds for each in DEAR))

    def decoded(self, count: int, seconds: float) -> None:
        """So many tokens, one after the other, took so long."""
        each = seconds / count
        self._since_pass += count
        self.plain_seconds += (RATE if self.plain_seconds else 1.0) * (each - self.plain_seconds)
