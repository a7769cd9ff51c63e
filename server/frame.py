"""Two looks at what goes on, one after the other, and the rates that follow from them."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cadenza.sdk.client import Activity, Load, Top

STATES = ("decoding", "prefilling", "queued", "running", "ready", "waiting")


@dataclass(frozen=True, slots=True)
class Frame:
    """`now`, and how it was `before`. Every rate is None without a look before, or with one of another daemon."""

    now: Top
    before: Top | None = None

    @property
    def seconds(self) -> float | None:
        """Between the two looks."""
        if self.before is None or self.now.load.steps < self.before.load.steps:
            return None
        return max(self.now.load.seconds - self.before.load.seconds, 0.0) or None

    @property
    def busy(self) -> float | None:
        """The share of the time in which the device worked, 0 to 1."""
        share = self._rate("device_seconds")
        return None if share is None else min(share, 1.0)

    @property
    def steps(self) -> float | None:
        """A second."""
        return self._rate("steps")

    @property
    def samples(self) -> float | None:
        """Tokens sampled a second."""
        return self._rate("samples")

    @property
    def inputs(self) -> float | None:
        """Tokens computed a second."""
        return self._rate("tokens")

    @property
    def step_tokens(self) -> float | None:
        """Input tokens of a step, on average."""
        return self._of_a_step("tokens")

    @property
    def step_rows(self) -> float | None:
        """Passes and runs that share a step, on average. None also if the server does not count them."""
        return self._of_a_step("rows")

    def processes(self) -> list[tuple[Activity, float | None]]:
        """Each with the tokens sampled for it a second; first those with the most, then those that do most."""
        before = {} if self.before is None else {process.pid: process.tokens for process in self.before.processes}
        rates = [(process, self._tokens_since(process, before)) for process in self.now.processes]
        return sorted(rates, key=lambda known: (-(known[1] or 0.0), _standing(known[0].state), known[0].seconds))

    def value(self) -> dict[str, Any]:
        """For programs: all of it."""
        load = self.now.load
        return {
            "seconds": self.seconds, "device_busy": self.busy, "steps_per_second": self.steps,
            "rows_per_step": self.step_rows, "tokens_per_step": self.step_tokens, "tokens_per_second": self.samples,
            "input_tokens_per_second": self.inputs, "passes": load.work, "passes_queued": load.queued,
            "steps_under_way": load.steps_under_way,
            "preemptions": load.preemptions, "swapped_out_pages": load.swapped_out_pages,
            "swapped_in_pages": load.swapped_in_pages, "processes_alive": load.processes,
            "processes_ready": load.ready, "tiers": [asdict(tier) for tier in load.tiers], "mine_alive": self.now.alive,
            "processes": [{**asdict(process), "tokens_per_second": rate} for process, rate in self.processes()],
        }  # fmt: skip

    def _tokens_since(self, process: Activity, before: dict[int, int]) -> float | None:
        """What was given up meanwhile counts as nothing."""
        seconds, known = self.seconds, before.get(process.pid)
        return None if seconds is None or known is None else max(0, process.tokens - known) / seconds

    def _rate(self, name: str) -> float | None:
        grown, seconds = self._growth(name), self.seconds
        return None if grown is None or seconds is None else grown / seconds

    def _of_a_step(self, name: str) -> float | None:
        grown, steps = self._growth(name), self._growth("steps")
        return None if grown is None or not steps else grown / steps

    def _growth(self, name: str) -> float | None:
        if self.before is None or self.seconds is None:
            return None
        now, before = _count(self.now.load, name), _count(self.before.load, name)
        return None if now is None or before is None else now - before


def _count(load: Load, name: str) -> float | None:
    count: float | None = getattr(load, name)
    return count


def _standing(state: str) -> int:
    return STATES.index(state) if state in STATES else len(STATES)
