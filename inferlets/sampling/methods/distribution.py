"""The next token's distribution, as far as it was asked for; what is kept of it; and a draw."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any


class Undecided(Exception):
    """What is known of the distribution does not decide what is kept: more of it must be asked for."""


@dataclass(frozen=True)
class Distribution:
    """Tokens with their log-probabilities (natural; what is kept of a distribution need not sum to 1), the likeliest
    first. `whole`: no token is missing; else all others are at most as likely as the last. `entropy` is that of the
    whole, in nats, where it was asked for."""

    tokens: Sequence[int]
    log_probabilities: Sequence[float]
    whole: bool = True
    entropy: float = math.nan

    @classmethod
    def of(cls, scores: Iterable[tuple[int, float]]) -> Distribution:
        """Of tokens with scores in any order."""
        ordered = sorted(scores, key=lambda pair: -pair[1])
        return cls([token for token, _ in ordered], [score for _, score in ordered])

    @classmethod
    def of_logits(cls, logits: Sequence[float]) -> Distribution:
        """Of all logits, by token."""
        most = max(logits)
        total = most + math.log(math.fsum(math.exp(logit - most) for logit in logits))
        found = cls.of((token, logit - total) for token, logit in enumerate(logits))
        terms = (math.exp(score) * score for score in found.log_probabilities if score > -math.inf)
        return cls(found.tokens, found.log_probabilities, entropy=-math.fsum(terms))

    def pairs(self) -> list[tuple[int, float]]:
        return list(zip(self.tokens, self.log_probabilities, strict=True))


def at_least(seen: Distribution, least: float) -> Distribution:
    """The tokens whose log-probability is `least` or more, and the likeliest in any case. Raises Undecided."""
    if not seen.whole and seen.log_probabilities[-1] >= least:
        raise Undecided
    count = max(1, sum(score >= least for score in seen.log_probabilities))
    return Distribution(seen.tokens[:count], seen.log_probabilities[:count])


def min_p(
    seen: Distribution, share: float, shift: Callable[[int], float] | None = None, lift: float = 0.0
) -> Distribution:
    """The tokens that are at least `share` times as likely as the likeliest one; 0 keeps all (Nguyen et al., 2024,
    arXiv 2407.01082, section 3). `shift` is added to the logit of each before, at most `lift`. Raises Undecided."""
    shifted = seen
    if shift is not None:
        shifted = Distribution.of((token, score + shift(token)) for token, score in seen.pairs())
    least = shifted.log_probabilities[0] + _logarithm(share)
    if not seen.whole and seen.log_probabilities[-1] + lift >= least:
        raise Undecided
    return at_least(Distribution(shifted.tokens, shifted.log_probabilities), least)


def min_p_of_logits(logits: Sequence[float], share: float) -> Distribution:
    """`min_p` of all logits, without their normalization: only what is kept is put in order."""
    least = max(logits) + _logarithm(share)
    return Distribution.of((token, logit) for token, logit in enumerate(logits) if logit >= least)


def _logarithm(share: float) -> float:
    return math.log(share) if share > 0 else -math.inf


class Draw:
    """Draws tokens, the same for the same seed. `temperature` 0 takes the likeliest; it changes nothing in what was
    kept before."""

    def __init__(self, temperature: float = 1.0, seed: int = 0) -> None:
        self.temperature = temperature
        self.random = random.Random(seed)

    @classmethod
    def by(cls, args: Mapping[str, Any], temperature: float = 1.0) -> Draw:
        """As the arguments `temperature` and `seed` say; `temperature` is used where they say nothing."""
        return cls(args.get("temperature", temperature), args.get("seed", 0))

    def __call__(self, kept: Distribution) -> int:
        if self.temperature == 0:
            return kept.tokens[0]
        most = kept.log_probabilities[0]
        weights = [math.exp((score - most) / self.temperature) for score in kept.log_probabilities]
        return self.random.choices(kept.tokens, weights)[0]
