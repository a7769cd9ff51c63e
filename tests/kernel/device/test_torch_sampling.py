"""From logits to a token: against a plain reference, by distribution, and inside the step."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from cadenza.kernel.device.batch import LateMasking
from cadenza.kernel.device.sampling import draw, masked, uniforms

from .dense import CONFIG, dense_logits, small_device
from .driver import Driver, File, Row, Sampler
from .reference_kernels import flash_device

NEAR = 1e-5      # of a boundary: there rounding may decide


def reference(logits: list[float], temperature: float, top_k: int, top_p: float, min_p: float, uniform: float) -> int:
    """The definition, in plain sums. Rejects the example when a boundary is too near to tell."""
    greatest = max(logits)
    if temperature == 0:
        return logits.index(greatest)
    kept = list(logits)
    if 0 < top_k < len(kept):
        least = sorted(kept)[-top_k]
        kept = [value for value in kept if value >= least]
    if top_p < 1:
        total = math.fsum(math.exp((value - greatest) / temperature) for value in kept)
        reached, least = 0.0, greatest
        for value in sorted(kept, reverse=True):
            least = value
            reached += math.exp((value - greatest) / temperature) / total
            assume(abs(reached - top_p) > NEAR)
            if reached >= top_p:
                break
        kept = [value for value in kept if value >= least]
    weights = [math.exp((value - greatest) / temperature) if value >= min(kept) else 0.0 for value in logits]
    assume(all(weight == 0 or abs(weight - min_p) > NEAR for weight in weights))
    weights = [weight if weight >= min_p else 0.0 for weight in weights]
    goal, reached = uniform * math.fsum(weights), 0.0
    for token, weight in enumerate(weights):
        reached += weight
        assume(weight == 0 or abs(goal - reached) > NEAR)
        if weight and goal < reached:
            return token
    raise AssertionError("nothing was kept")


@settings(max_examples=300, deadline=None)
@given(
    st.lists(st.floats(-8, 8, width=32), min_size=1, max_size=24),
    st.one_of(st.just(0.0), st.floats(0.0625, 4, width=32)),
    st.integers(0, 30),
    st.one_of(st.just(1.0), st.floats(0, 1)),
    st.one_of(st.just(0.0), st.floats(0, 1)),
    st.floats(0, 1, exclude_max=True),
)
def test_draw_is_the_definition(
    logits: list[float], temperature: float, top_k: int, top_p: float, min_p: float, uniform: float
) -> None:
    found = draw(np.array(logits, np.float32), temperature, top_k, top_p, min_p, uniform)
    assert found == reference(logits, temperature, top_k, top_p, min_p, uniform)


@pytest.mark.parametrize("top_p", [0.02, 0.5, 0.97])
@pytest.mark.parametrize("spread", [0.1, 3.0])
def test_nucleus_of_a_large_vocabulary(top_p: float, spread: float) -> None:
    """A flat distribution needs more than the tokens that are tried first; a steep one does not."""
    logits = np.random.default_rng(1).normal(0, spread, 20_000).astype(np.float32)
    probabilities = np.exp(logits.astype(np.float64))
    probabilities /= probabilities.sum()
    falling = np.argsort(-probabilities)
    count = int(np.searchsorted(np.cumsum(probabilities[falling]), top_p)) + 1
    nucleus = set(falling[:count].tolist())
    found = {draw(logits, 1.0, 0, top_p, 0.0, u) for u in np.linspace(0, 1, 800, endpoint=False)}
    assert found <= nucleus
    assert len(found) > min(count, 800) / 3


@pytest.mark.parametrize("uniform", [0.0, 0.5, 1 - 2**-53])
@pytest.mark.parametrize("temperature", [1e-30, 1e-3, 1.0, 1e4, 3e38])
def test_no_temperature_draws_what_is_not_allowed(temperature: float, uniform: float) -> None:
    logits = masked(np.array([50, -3, 2, 7, 1, 0, 3, 4, 9], np.float32), np.array([0b10000100, 0b1], np.uint8))
    assert draw(logits, temperature, 0, 1.0, 0.0, uniform) in (2, 7, 8)
    assert draw(logits, temperature, 5, 0.9, 0.1, uniform) in (2, 7, 8)


def test_a_mask_that_allows_one_token_decides() -> None:
    logits = np.zeros(19, np.float32)
    for token in range(19):
        mask = np.packbits(np.arange(19) == token, bitorder="little")
        assert draw(masked(logits, mask), 0.0, 0, 1.0, 0.0, 0.5) == token
        assert draw(masked(logits, mask), 1.0, 3, 0.5, 0.5, 0.999) == token


def chi_square(counts: np.ndarray, expected: np.ndarray) -> float:
    return float(((counts - expected) ** 2 / expected).sum())


def test_draws_follow_the_distribution() -> None:
    logits = np.array([0.0, 1.0, -1.0, 2.0, 0.5, -0.5, 1.5, -2.0], np.float32)
    count, temperature = 20_000, 0.7
    numbers = uniforms(np.full(count, 42, np.uint64), np.arange(count, dtype=np.int64))
    found = np.bincount([draw(logits, temperature, 0, 1.0, 0.0, float(u)) for u in numbers], minlength=8)
    probabilities = np.exp(logits.astype(np.float64) / temperature)
    # 29.9 is passed once in 10,000 times with 7 degrees of freedom.
    assert chi_square(found, count * probabilities / probabilities.sum()) < 29.9


@pytest.mark.parametrize("by_seed", [True, False])
def test_uniforms_are_even_over_seeds_and_over_draws(by_seed: bool) -> None:
    count, bins = 50_000, 50
    running, fixed = np.arange(count), np.full(count, 9)
    seeds, draws = (running, fixed) if by_seed else (fixed, running)
    numbers = uniforms(seeds.astype(np.uint64), draws.astype(np.int64))
    assert numbers.min() >= 0
    assert numbers.max() < 1
    assert len(np.unique(numbers)) == count
    expected = np.full(bins, count / bins)
    # 94.7 is passed once in 10,000 times with 49 degrees of freedom.
    assert chi_square(np.bincount((numbers * bins).astype(int), minlength=bins), expected) < 94.7
    assert abs(np.corrcoef(numbers[1:], numbers[:-1])[0, 1]) < 0.02


def test_uniforms_are_splitmix64() -> None:
    """Its published first outputs from state 0 (mix(0) is 0)."""
    words = [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4, 0x06C45D188009454F]
    found = uniforms(np.zeros(3, np.uint64), np.arange(3, dtype=np.int64))
    assert found.tolist() == [(word >> 11) * 2.0**-53 for word in words]


def test_the_largest_seeds_are_seeds() -> None:
    seeds = np.array([0, 1, 2**63, 2**64 - 1], np.uint64)
    assert len(set(uniforms(seeds, np.zeros(4, np.int64)).tolist())) == 4


# --- in the step ---


@pytest.fixture
def driver() -> Iterator[Driver]:
    with small_device() as device:
        yield Driver(device)


def test_neighbours_do_not_change_a_draw(driver: Driver) -> None:
    prompt = [5, 9, 2, 33]
    sampler = Sampler(temperature=1.5, seed=77, draw=3)
    alone = driver.step([Row(File(), prompt, samples=[(3, sampler)])])[0].tokens
    strangers = [
        Row(File(), [n, n + 1], samples=[(1, Sampler(temperature=1.0, top_k=n, seed=n)), (0, Sampler())])
        for n in range(1, 12)
    ]
    together = driver.step([*strangers, Row(File(), prompt, samples=[(3, sampler)])])[-1].tokens
    assert together == alone


def test_several_samplers_at_one_position(driver: Driver) -> None:
    """Each draws for itself; a greedy one sees what a mask leaves; equal ones draw equally."""
    prompt = [5, 9, 2, 33]
    last = dense_logits(prompt)[-1]
    likeliest = [int(token) for token in np.argsort(-last)]
    hot = Sampler(temperature=2.0, seed=1)
    samplers = [Sampler(), Sampler(allowed=likeliest[1:]), Sampler(allowed=likeliest[5:9]), hot, hot, Sampler(top_k=1)]
    seeds = [Sampler(temperature=2.0, seed=seed) for seed in range(40)]
    tokens = driver.step([Row(File(), prompt, samples=[(3, s) for s in samplers + seeds])])[0].tokens
    assert tokens[:3] == [likeliest[0], likeliest[1], likeliest[5]]
    assert tokens[3] == tokens[4]
    assert tokens[5] == likeliest[0]
    assert len(set(tokens[6:])) > 10


def test_a_mask_is_never_violated_in_the_step(driver: Driver) -> None:
    allowed = [0, 7, 8, 63]
    samplers = [Sampler(temperature=5.0, seed=seed, allowed=allowed) for seed in range(200)]
    tokens = driver.step([Row(File(), [1, 2, 3], samples=[(2, s) for s in samplers])])[0].tokens
    assert set(tokens) == set(allowed)


@pytest.mark.parametrize("make", [small_device, flash_device, partial(flash_device, padding=True)])
def test_masks_that_come_late_are_asked_for_before_they_are_read(make: Callable[[], Any]) -> None:
    with make() as device:
        assert isinstance(device, LateMasking)
        batch = Driver(device).batch([Row(File(), [1, 2, 3], samples=[(2, Sampler(allowed=[0, 1, 2, 3]))])], [])
        batch.late_masks = np.array([0], np.int32)
        asked = []

        def give() -> None:
            asked.append(batch.step)
            batch.masks[0] = np.packbits(np.arange(8 * batch.masks.shape[1]) == 7, bitorder="little")

        device.ask_for_masks(give)
        assert device.step(batch).tokens.tolist() == [7]
        batch.late_masks = np.zeros(0, np.int32)
        device.step(batch)
        assert asked == [batch.step], "once, and only where masks are late"


def test_the_last_of_two_samples_on_a_lane_is_remembered(driver: Driver) -> None:
    file = File()
    samples = [(0, Sampler(lane=0)), (2, Sampler(lane=0))]
    tokens = driver.step([Row(file, [4, 6, 8], samples=samples)])[0].tokens
    found = driver.step([Row(file, [-1], samples=[(0, Sampler())])])[0].tokens
    assert found == [int(dense_logits([4, 6, 8, tokens[1]])[-1].argmax())]


def test_a_run_with_one_seed_repeats(driver: Driver) -> None:
    def run() -> list[int]:
        file, tokens = File(), [3, 1, 4]
        for number in range(25):
            sampler = Sampler(temperature=1.2, top_k=20, top_p=0.95, min_p=0.01, seed=5, draw=number, lane=2)
            made = driver.step([Row(file, [-3] if number else tokens, samples=[(0 if number else 2, sampler)])])
            tokens = tokens + made[0].tokens
        return tokens

    first = run()
    assert run() == first
    assert max(first) < CONFIG.vocabulary_size
    assert len(set(first)) > 8
