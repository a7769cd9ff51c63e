"""Probes: what each tells, on any position, of the raw logits."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from cadenza.kernel.device.batch import PROBE_ENTROPY, PROBE_LOG_PROBABILITIES, PROBE_LOGITS, PROBE_TOP
from cadenza.kernel.device.probing import entropy, top

from .dense import CONFIG, dense_logits, small_device
from .driver import Driver, File, Probe, Row, Sampler

PROMPT = [5, 9, 2, 33, 60]
TOLERANCE = 2e-5


@pytest.fixture
def driver() -> Iterator[Driver]:
    with small_device() as device:
        yield Driver(device)


def expected_log_probabilities() -> np.ndarray:
    """float64 [tokens, V]."""
    logits = dense_logits(PROMPT).astype(np.float64)
    logits -= np.log(np.exp(logits).sum(1, keepdims=True))
    return logits


def test_every_kind_on_every_position(driver: Driver) -> None:
    expected = expected_log_probabilities()
    kinds = [
        Probe(PROBE_TOP, count=3), Probe(PROBE_LOG_PROBABILITIES, asked=[7, 0, 63, 7]), Probe(PROBE_ENTROPY),
        Probe(PROBE_LOGITS), Probe(PROBE_TOP, count=CONFIG.vocabulary_size),
    ]
    masked = Sampler(temperature=0.5, allowed=[1, 2])
    row = Row(File(), PROMPT, samples=[(4, masked)], probes=[(t, kind) for t in range(5) for kind in kinds])
    answers = iter(driver.step([row])[0].probes)
    for token in range(5):
        order = np.argsort(-expected[token])
        values, ids = next(answers)
        assert ids.tolist() == order[:3].tolist()
        np.testing.assert_allclose(values[:3], expected[token][order[:3]], atol=TOLERANCE)
        np.testing.assert_allclose(values[3], np.exp(expected[token][order[3:]]).sum(), atol=TOLERANCE)
        values, ids = next(answers)
        assert len(ids) == 0
        np.testing.assert_allclose(values, expected[token][[7, 0, 63, 7]], atol=TOLERANCE)
        values, _ = next(answers)
        np.testing.assert_allclose(values, [-(np.exp(expected[token]) * expected[token]).sum()], atol=TOLERANCE)
        values, _ = next(answers)
        np.testing.assert_allclose(values, dense_logits(PROMPT)[token], atol=TOLERANCE)
        values, ids = next(answers)
        assert sorted(ids.tolist()) == list(range(CONFIG.vocabulary_size))
        assert values[-1] == pytest.approx(0, abs=1e-6)
    assert next(answers, None) is None


def test_rows_keep_their_own_probes(driver: Driver) -> None:
    rows = [Row(File(), [n, n + 1], probes=[(1, Probe(PROBE_TOP, count=n)), (1, Probe(PROBE_LOGITS))]) for n in (1, 4)]
    for n, answer in zip((1, 4), driver.step(rows), strict=True):
        (values, ids), (logits, _) = answer.probes
        assert (len(values), len(ids)) == (n + 1, n)
        assert ids[0] == logits.argmax()
        np.testing.assert_allclose(logits, dense_logits([n, n + 1])[1], atol=TOLERANCE)


def test_equals_come_in_the_order_of_their_ids() -> None:
    values, ids = top(np.array([1, 3, 1, 3, 1], np.float32), 4)
    assert ids.tolist() == [1, 3, 0, 2]
    assert values[0] == values[1]
    assert top(np.array([1, 3], np.float32), 9)[1].tolist() == [1, 0]
    assert top(np.array([1, 3], np.float32), 0)[0].tolist() == [1.0]


def test_entropy_at_its_ends() -> None:
    assert entropy(np.zeros(64, np.float32)) == pytest.approx(np.log(64))
    assert entropy(np.array([0, 1e4, 0], np.float32)) == pytest.approx(0)
