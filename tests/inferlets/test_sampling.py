"""The defining property of each sampling method, on distributions that are known."""

from __future__ import annotations

import asyncio
import math
import random
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cadenza.inferlets.sampling.methods.classifier_free import guided
from cadenza.inferlets.sampling.methods.contrastive import contrasted
from cadenza.inferlets.sampling.methods.distribution import (
    Distribution,
    Draw,
    Undecided,
    at_least,
    min_p,
    min_p_of_logits,
)
from cadenza.inferlets.sampling.methods.dry import penalty, repeated
from cadenza.inferlets.sampling.methods.eta import cut_off, eta
from cadenza.inferlets.sampling.methods.mirostat import Mirostat
from cadenza.inferlets.sampling.methods.self_consistency import NUMBER, answer_of, voted
from cadenza.inferlets.sampling.methods.top_n_sigma import top_n_sigma
from cadenza.inferlets.sampling.methods.tree_of_thought import preference, search
from cadenza.inferlets.sampling.methods.typical import typical
from cadenza.inferlets.sampling.methods.xtc import xtc

logits = st.lists(st.floats(-8, 8), min_size=2, max_size=40)


def known(*probabilities: float) -> Distribution:
    return Distribution.of_logits([math.log(each) for each in probabilities])


def top(whole: Distribution, count: int) -> Distribution:
    """What a probe of `count` tokens tells of it."""
    return Distribution(whole.tokens[:count], whole.log_probabilities[:count], False, whole.entropy)


def probability(kept: Distribution) -> float:
    return math.fsum(map(math.exp, kept.log_probabilities))


# --- what is seen, kept and drawn ---


@given(logits)
def test_a_distribution_sums_to_one_and_is_in_order(values: list[float]) -> None:
    found = Distribution.of_logits(values)
    assert probability(found) == pytest.approx(1)
    assert list(found.log_probabilities) == sorted(found.log_probabilities, reverse=True)
    assert sorted(found.tokens) == list(range(len(values)))


def test_entropy_is_that_of_the_distribution() -> None:
    assert Distribution.of_logits([3.0] * 8).entropy == pytest.approx(math.log(8))
    assert known(0.5, 0.25, 0.25).entropy == pytest.approx(1.5 * math.log(2))


METHODS = {
    "at_least": lambda seen: at_least(seen, -3.0),
    "eta": lambda seen: eta(seen, 0.05),
    "min_p": lambda seen: min_p(seen, 0.1),
    "shifted": lambda seen: min_p(seen, 0.1, lambda token: 1.0 if token % 3 == 0 else -1.0, lift=1.0),
    "typical": lambda seen: typical(seen, 0.7),
}


@pytest.mark.parametrize("name", METHODS)
@settings(max_examples=60)
@given(values=logits)
def test_the_top_decides_as_the_whole_does_or_says_that_it_does_not(name: str, values: list[float]) -> None:
    whole = Distribution.of_logits(values)
    wanted = METHODS[name](whole)
    for count in range(1, len(values)):
        try:
            kept = METHODS[name](top(whole, count))
        except Undecided:
            continue
        assert list(kept.tokens) == list(wanted.tokens)


@pytest.mark.parametrize("name", METHODS)
def test_a_top_is_enough_for_a_steep_distribution(name: str) -> None:
    whole = Distribution.of_logits([-2.0 * at for at in range(100)])
    assert METHODS[name](top(whole, 8)).tokens == METHODS[name](whole).tokens


def test_min_p_keeps_a_share_of_the_likeliest() -> None:
    assert min_p(known(0.4, 0.3, 0.05, 0.25), 0.5).tokens == [0, 1, 3]
    assert len(min_p(known(0.9, 0.09, 0.01), 0).tokens) == 3


@given(logits, st.sampled_from([0.0, 0.02, 0.3, 1.0]))
def test_min_p_of_logits_is_that_of_the_distribution(values: list[float], share: float) -> None:
    values = [round(value, 3) for value in values]
    least = max(values) + (math.log(share) if share else -math.inf)
    if share == 1 or all(abs(value - least) > 1e-9 for value in values):
        assert min_p_of_logits(values, share).tokens == min_p(Distribution.of_logits(values), share).tokens


def test_draws_follow_the_weights_and_the_seed() -> None:
    kept = at_least(known(0.6, 0.2, 0.15, 0.05), math.log(0.19))
    drawn = [Draw(seed=1)(kept) for _ in range(3)]
    assert len(set(drawn)) == 1
    draw = Draw(seed=2)
    counts = [draw(kept) for _ in range(4000)].count(0)
    assert counts / 4000 == pytest.approx(0.75, abs=0.03)
    assert {Draw(0.0, seed)(kept) for seed in range(20)} == {0}


# --- truncation ---


def test_typical_keeps_what_is_nearest_to_the_entropy() -> None:
    whole = known(0.5, 0.125, 0.125, 0.125, 0.0625, 0.0625)     # entropy 2.125 bits; surprisals 1, 3, 3, 3, 4, 4
    assert sorted(typical(whole, 0.3).tokens) == [1, 2, 3]      # the likeliest token is not the most typical
    assert sorted(typical(whole, 0.4).tokens) == [0, 1, 2, 3]


@given(logits, st.floats(0.05, 0.95))
def test_typical_reaches_its_mass_with_nothing_to_spare(values: list[float], mass: float) -> None:
    whole = Distribution.of_logits(values)
    kept = typical(whole, mass)
    far = {token: abs(-score - whole.entropy) for token, score in whole.pairs()}
    farthest = max(kept.tokens, key=far.__getitem__)
    assert probability(kept) > mass - 1e-9
    assert probability(kept) - math.exp(dict(kept.pairs())[farthest]) < mass + 1e-9
    assert all(far[token] >= far[farthest] for token in set(whole.tokens) - set(kept.tokens))


def test_eta_cuts_lower_where_the_model_is_unsure() -> None:
    assert cut_off(0.0, 0.01) == 0.01
    assert cut_off(math.log(100), 0.01) == pytest.approx(0.001)
    assert eta(known(0.9, 0.06, 0.04), 0.05).tokens == [0, 1]
    assert len(eta(Distribution.of_logits([0.0] * 100), 0.05).tokens) == 100     # a fixed cut-off would leave none


def test_mirostat_comes_to_the_surprise_that_was_asked_for() -> None:
    zipf = Distribution.of_logits([-1.1 * math.log(rank) for rank in range(1, 2001)])
    surprise = {token: -score / math.log(2) for token, score in zipf.pairs()}
    for tau in (2.5, 4.0, 6.0):
        mirostat = Mirostat(tau, 0.1, Draw(seed=3))
        said = [surprise[mirostat(zipf)] for _ in range(1500)]
        assert sum(said[300:]) / 1200 == pytest.approx(tau, abs=0.1)


def test_mirostat_asks_for_more_before_it_draws() -> None:
    mirostat, draw = Mirostat(3.0, 0.1, Draw(seed=0)), Draw(seed=0)
    whole = Distribution.of_logits([0.0] * 50)
    with pytest.raises(Undecided):
        mirostat(top(whole, 10))
    assert mirostat(whole) == draw(whole)


def test_top_n_sigma_keeps_logits_by_their_deviation() -> None:
    values = [10.0, 9.0, 0.0, 0.0, 1.0, -2.0]       # deviation about 4.7
    assert top_n_sigma(values, 1).tokens == [0, 1]
    assert len(top_n_sigma(values, 3).tokens) == 6


@given(logits, st.floats(0.2, 5))
def test_top_n_sigma_does_not_depend_on_the_temperature(values: list[float], temperature: float) -> None:
    values = [round(value, 2) for value in values]
    mean = sum(values) / len(values)
    sigma = math.sqrt(sum((value - mean) ** 2 for value in values) / len(values))
    if any(abs(max(values) - sigma - value) < 1e-6 for value in values):
        return                                      # on the edge, rounding decides
    assert top_n_sigma(values, 1).tokens == top_n_sigma([value / temperature for value in values], 1).tokens


def test_xtc_leaves_the_least_of_the_good_tokens() -> None:
    assert xtc(known(0.4, 0.3, 0.2, 0.06, 0.04), 0.1).tokens == [2, 3, 4]
    assert xtc(known(0.8, 0.15, 0.05), 0.2).tokens == [0, 1, 2]         # one good token stays
    assert xtc(known(0.3, 0.3, 0.3, 0.1), 0.5).tokens == [0, 1, 2, 3]   # none is good


# --- repetition ---


def slowly_repeated(tokens: Sequence[int], breakers: Sequence[int] = ()) -> dict[int, int]:
    found: dict[int, int] = {}
    for at in range(1, len(tokens)):
        length = 0
        while length < at and tokens[at - 1 - length] == tokens[-1 - length] not in breakers:
            length += 1
        if length and tokens[at] not in breakers:
            found[tokens[at]] = max(length, found.get(tokens[at], 0))
    return found


@given(st.lists(st.integers(0, 3), max_size=40), st.sampled_from([(), (0,)]))
def test_repetitions_are_all_found(tokens: list[int], breakers: tuple[int, ...]) -> None:
    assert repeated(tokens, breakers) == slowly_repeated(tokens, breakers)


def test_the_penalty_grows_with_what_is_repeated() -> None:
    assert repeated([1, 2, 3, 4, 9, 1, 2, 3]) == {4: 3}
    assert repeated([1, 2, 3, 4, 9, 1, 2, 3], {2}) == {4: 1}
    assert [penalty(length, 0.8, 1.75, 2) for length in (0, 1, 2, 3)] == [0.0, 0.0, 0.8, pytest.approx(1.4)]


# --- two distributions ---


def test_guidance_is_the_formula() -> None:
    assert guided([2.0, 0.0, 1.0], [1.0, 1.0, 1.0], 1.5) == [2.5, -0.5, 1.0]
    assert guided([2.0, 0.0], [1.0, 3.0], 1) == [2.0, 0.0]
    assert guided([2.0, 0.0], [1.0, 3.0], 0) == [1.0, 3.0]


def test_contrast_is_within_the_plausible() -> None:
    plausible = min_p(known(0.6, 0.3, 0.09, 0.01), 0.1)
    assert plausible.tokens == [0, 1, 2]
    amateur = [math.log(each) for each in (0.6, 0.05, 0.3)]
    assert contrasted(plausible, amateur).pairs() == [
        (1, pytest.approx(math.log(6))), (0, pytest.approx(0)), (2, pytest.approx(math.log(0.3)))]


# --- whole answers ---


def test_the_most_frequent_answer_wins() -> None:
    texts = ["3 and 4 are 7.", "It is 8", "So: 7", "no idea\nat all "]
    assert [answer_of(text, NUMBER) for text in texts] == ["7", "8", "7", "at all"]
    assert voted(["7", "8", "7"]) == ("7", 2)
    assert voted(["8", "7"]) == ("8", 1)


def test_a_tree_finds_what_its_width_can_hold() -> None:
    """Digits of 1 to 3 at a time; the value is the sum, but what begins with 3 comes to nothing in the end."""
    async def propose(digits: str) -> list[str]:
        return [digits + each for each in "123"]

    async def value(digits: str) -> float:
        return 0.0 if digits[0] == "3" and len(digits) == 3 else float(sum(map(int, digits)))

    narrow = asyncio.run(search("", propose, value, steps=3, width=1))
    wide = asyncio.run(search("", propose, value, steps=3, width=3))
    assert narrow[0][1] == 0
    assert wide[0] == ("233", 8.0)
    assert [worth for _, worth in wide] == sorted((worth for _, worth in wide), reverse=True)


def test_preference_is_a_probability() -> None:
    assert preference(-1.0, -1.0) == 0.5
    assert preference(math.log(0.3), math.log(0.1)) == pytest.approx(0.75)
    assert preference(-2000.0, 0.0) == pytest.approx(0)


def test_random_numbers_of_a_method_are_its_own() -> None:
    draw, kept = Draw(seed=5), known(0.5, 0.5)
    random.seed(1)
    first = [draw(kept) for _ in range(20)]
    random.seed(2)
    draw = Draw(seed=5)
    assert first == [draw(kept) for _ in range(20)]
