"""From what was measured to ratios, a table and the last line."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Iterable

from rich.table import Table

OURS, OURS_INT8, BARE = "ours", "ours_int8", "bare"

# What is measured of an engine: ("decode", sequences) in seconds a step, ("prefill", tokens) in seconds.
What = tuple[str, int]


class Rounds:
    """Seconds by engine and by what was measured, one number a round, in the order of the rounds."""

    def __init__(self) -> None:
        self._seconds: defaultdict[tuple[str, What], list[float]] = defaultdict(list)

    def add(self, engine: str, what: What, seconds: float) -> None:
        self._seconds[engine, what].append(seconds)

    def measured(self) -> list[What]:
        return sorted({what for _, what in self._seconds})

    def median(self, engine: str, what: What) -> float | None:
        """None for what was not measured."""
        seconds = self._seconds.get((engine, what))
        return statistics.median(seconds) if seconds else None

    def ratio(self, faster: str, slower: str, what: What) -> float | None:
        """How many times as fast `faster` is: the median over rounds, each within itself."""
        pairs = zip(self._seconds.get((slower, what), ()), self._seconds.get((faster, what), ()), strict=False)
        ratios = [theirs / ours for theirs, ours in pairs]
        return statistics.median(ratios) if ratios else None


def ratios(rounds: Rounds, peers: Iterable[str]) -> dict[str, float]:
    """`decode_8_vs_openvino` and so on, of what was measured. q8_0 stands beside our int8 alone."""
    found: dict[str, float | None] = {}
    for kind, count in rounds.measured():
        for peer in peers:
            int8 = peer == "llama_q8"
            key = f"{'int8_' * int8}{kind}_{count}_vs_{peer}"
            found[key] = rounds.ratio(OURS_INT8 if int8 else OURS, peer, (kind, count))
        found[f"{kind}_{count}_vs_bare"] = rounds.ratio(OURS, BARE, (kind, count))
        found[f"int8_{kind}_{count}_vs_ours"] = rounds.ratio(OURS_INT8, OURS, (kind, count))
    return {key: ratio for key, ratio in found.items() if ratio is not None}


def same_tokens(ours: list[list[int]], theirs: list[list[int]]) -> float:
    """The share of prompts after which both say the same first token, and then of the tokens before they part."""
    pairs = [(mine, other) for row, theirs_row in zip(ours, theirs, strict=True)
             for mine, other in until_parted(row, theirs_row)]
    return sum(mine == other for mine, other in pairs) / len(pairs)


def until_parted(ours: list[int], theirs: list[int]) -> list[tuple[int, int]]:
    """Pairs up to the first that differs, that one included: behind it the two go on from different texts."""
    pairs = list(zip(ours, theirs, strict=True))
    parted = next((place for place, (mine, other) in enumerate(pairs) if mine != other), len(pairs) - 1)
    return pairs[: parted + 1]


def table(rounds: Rounds, engines: dict[str, str], same: dict[str, float], skipped: dict[str, str]) -> Table:
    """`engines`: what each computes with. Tokens a second."""
    measured = rounds.measured()
    drawn = Table(title="tokens a second")
    for heading in ("engine", "computes with", "same tokens"):
        drawn.add_column(heading)
    for kind, count in measured:
        drawn.add_column(f"{kind} {count}", justify="right")
    for engine, how in engines.items():
        share = f"{same[engine]:.0%}" if engine in same else ""
        drawn.add_row(engine, how, share, *(speed(rounds, engine, what) for what in measured))
    drawn.caption = "\n".join(f"{engine}: {why}" for engine, why in skipped.items())
    return drawn


def speed(rounds: Rounds, engine: str, what: What) -> str:
    seconds = rounds.median(engine, what)
    return "" if seconds is None else f"{what[1] / seconds:.1f}"
