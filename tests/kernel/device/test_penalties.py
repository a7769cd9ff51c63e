"""Biases and penalties: against their definitions, over histories that grow and slide, told or kept on lanes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cadenza.kernel.device.batch import Batch
from cadenza.kernel.device.penalties import Histories, History
from cadenza.kernel.device.sampling import sample

from .dense import CONFIG, dense_logits, small_device
from .driver import Driver, File, Row, Sampler

VOCABULARY = 12
tokens = st.integers(0, VOCABULARY - 1)


def reference(
    logits: list[float], said: list[int], repetition: float, frequency: float, presence: float
) -> list[float]:
    """The definitions, one token at a time."""
    changed = list(logits)
    for token, times in Counter(said).items():
        value = changed[token]
        value = value / repetition if value > 0 else value * repetition
        changed[token] = value - frequency * times - presence
    return changed


@settings(max_examples=300, deadline=None)
@given(
    st.lists(st.floats(-8, 8, width=32), min_size=VOCABULARY, max_size=VOCABULARY),
    st.lists(tokens, min_size=1, max_size=40), st.lists(tokens, max_size=40), st.integers(0, 50),
    st.floats(0.5, 4, width=32), st.floats(-2, 2, width=32), st.floats(-2, 2, width=32),
)
def test_a_history_that_grows_token_by_token_is_one_that_was_told(
    logits: list[float], told: list[int], said: list[int], window: int, repetition: float, frequency: float,
    presence: float,
) -> None:
    history = History(np.array(told, np.int32), window)
    for token in said:
        history.append(token)
    got = np.array(logits, np.float32)
    history.penalise(got, repetition, frequency, presence)
    whole = [*told, *said][-window:] if window else [*told, *said]
    np.testing.assert_allclose(got, reference(logits, whole, repetition, frequency, presence), rtol=1e-5, atol=1e-5)


def asked(samples: int, **arrays: list[object]) -> Batch:
    """That many greedy samples."""
    batch = Batch(0, sample_lanes=np.full(samples, -1, np.int32), sample_masks=np.full(samples, -1, np.int32),
                  seeds=np.zeros(samples, np.uint64), draws=np.zeros(samples, np.int64))
    for name in ("temperature", "top_k", "top_p", "min_p"):
        setattr(batch, name, np.full(samples, name == "top_p", getattr(batch, name).dtype))
    for name, values in arrays.items():
        setattr(batch, name, np.array(values, getattr(batch, name).dtype))
    return batch


def test_a_lane_remembers_until_it_is_told_anew_or_forgets() -> None:
    logits, histories, first = np.array([[4, 3, 2, 1]], np.float32), Histories(), np.zeros(1, np.int64)
    penalised = {"sample_lanes": [5], "penalties": [[1, 0, 10]], "windows": [0]}
    told = asked(1, **penalised, told=[0], told_starts=[0, 1])
    later = asked(1, **penalised, told_starts=[0, 0])
    said = [int(sample(batch, logits, first, histories)[0]) for batch in (told, later, later, told, later)]
    assert said == [1, 2, 3, 1, 2]
    histories.forget(np.array([5, 9], np.int32))
    assert len(histories) == 0


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.floats(-8, 8, width=32), min_size=VOCABULARY, max_size=VOCABULARY),
    st.dictionaries(tokens, st.floats(-9, 9, width=32), min_size=1), st.lists(tokens, min_size=1, max_size=40),
    st.sets(tokens, min_size=1), st.floats(0.5, 4, width=32), st.floats(-2, 2, width=32),
)
def test_the_greatest_of_what_is_biased_penalised_and_allowed(
    logits: list[float], bias: dict[int, float], said: list[int], allowed: set[int], repetition: float, presence: float
) -> None:
    batch = asked(1, sample_biases=[0], bias_starts=[0, len(bias)], bias_tokens=[*bias], bias_values=[*bias.values()],
                  penalties=[[repetition, 0, presence]], windows=[0], told=said, told_starts=[0, len(said)],
                  sample_masks=[0])
    batch.masks = np.packbits([token in allowed for token in range(VOCABULARY)], bitorder="little")[None]
    got = int(sample(batch, np.array([logits], np.float32), np.zeros(1, np.int64), Histories())[0])
    biased = [value + bias.get(token, 0.0) for token, value in enumerate(logits)]
    expected = reference(biased, said, repetition, 0.0, presence)
    assert got in allowed
    assert expected[got] >= max(expected[token] for token in allowed) - 1e-4


def test_a_device_forgets_in_a_step_that_computes_nothing(driver: Driver) -> None:
    row = Row(File(), [5, 9], samples=[(1, Sampler(lane=3))])
    batch = driver.batch([row], [])
    batch.penalties, batch.windows = np.array([[2, 0, 0]], np.float32), np.zeros(1, np.int32)
    batch.told, batch.told_starts = np.array([5, 9], np.int32), np.array([0, 2], np.int32)
    driver.device.step(batch)
    again = driver.batch([Row(row.file, [-4], samples=[(0, Sampler(lane=3))])], [])
    again.penalties, again.windows, again.told_starts = batch.penalties, batch.windows, np.zeros(2, np.int32)
    driver.device.step(Batch(8, forgotten=np.array([2], np.int32)))
    assert len(driver.device.step(again).tokens) == 1
    driver.device.step(Batch(9, forgotten=np.array([3], np.int32)))
    with pytest.raises(KeyError):
        driver.device.step(again)


def test_bias_comes_before_penalties_and_those_before_the_mask() -> None:
    logits, histories, rows = np.array([[1, -1, 0, 0.5]], np.float32), Histories(), np.zeros(4, np.int64)
    only_2 = np.packbits([0, 0, 1, 0, 0, 0, 0, 0], bitorder="little")[None]
    batch = asked(4, sample_biases=[-1, 0, 0, 0], bias_starts=[0, 2], bias_tokens=[1, 2], bias_values=[2.5, -50],
                  penalties=[[1, 0, 0], [1, 0, 0], [4, 0, 0], [4, 0, 0]], windows=[0] * 4, told=[1, 1],
                  told_starts=[0, 0, 0, 1, 2], sample_masks=[-1, -1, -1, 0], masks=only_2)
    # 1.5 of token 1 is divided, because the bias made it positive; then 1.0 of token 0 is the greatest.
    assert sample(batch, logits, rows, histories).tolist() == [0, 1, 0, 2]
    assert logits.tolist() == [[1, -1, 0, 0.5]]
    assert len(histories) == 0, "without a lane nothing is kept"


@pytest.fixture
def driver() -> Iterator[Driver]:
    with small_device() as device:
        yield Driver(device)


def test_a_step_that_scores_and_samples(driver: Driver) -> None:
    row = Row(File(), [5, 9, 2, 33, 60], samples=[(4, Sampler())])
    batch = driver.batch([row], [])
    batch.score_tokens, batch.score_targets = np.array([3, 0], np.int32), np.array([60, 9], np.int32)
    result = driver.device.step(batch)
    logits = dense_logits(row.tokens).astype(np.float64)
    logits -= np.log(np.exp(logits).sum(1, keepdims=True))
    np.testing.assert_allclose(result.scores, logits[[3, 0], [60, 9]], atol=2e-5)
    assert result.tokens.tolist() == [int(logits[4].argmax())]


def test_more_scores_than_are_computed_at_once(driver: Driver) -> None:
    tokens = np.random.default_rng(1).integers(0, CONFIG.vocabulary_size, 200).tolist()
    batch = driver.batch([Row(File(), tokens)], [])
    batch.score_tokens, batch.score_targets = np.arange(199, dtype=np.int32), np.array(tokens[1:], np.int32)
    logits = dense_logits(tokens).astype(np.float64)
    logits -= np.log(np.exp(logits).sum(1, keepdims=True))
    np.testing.assert_allclose(driver.device.step(batch).scores, logits[range(199), tokens[1:]], atol=2e-5)
