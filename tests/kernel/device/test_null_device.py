import numpy as np
import pytest

from cadenza.kernel.device.batch import (
    PROBE_ENTROPY,
    PROBE_LOG_PROBABILITIES,
    PROBE_LOGITS,
    PROBE_TOP,
    Batch,
)
from cadenza.kernel.device.null_device import CostModel, Draw, NullDevice
from cadenza.kernel.limits import LANES

from .rows import decodes


def test_a_lane_named_as_input_is_the_token_it_sampled_last() -> None:
    device = NullDevice(vocabulary_size=50_000)
    first = device.step(decodes(1, [40_000, 6, 7], [0, LANES - 1, -1])).tokens
    ahead = device.step(decodes(2, [-LANES, -1], [3, 4], position=1)).tokens
    known = NullDevice(vocabulary_size=50_000).step(decodes(2, [first[1], first[0]], [8, 9], position=1)).tokens
    assert ahead.tolist() == known.tolist()
    assert len({*first.tolist(), *ahead.tolist()}) == 5


def test_tokens_depend_on_what_was_asked_and_not_on_where() -> None:
    alone = NullDevice().step(decodes(1, [5], [0], seed=3)).tokens
    together = NullDevice().step(decodes(9, [8, 5], [7, 1], seed=3)).tokens
    assert together[1] == alone[0]
    assert NullDevice().step(decodes(1, [5], [0], seed=4)).tokens != alone
    greedy = NullDevice().step(decodes(1, [5], [0])).tokens
    assert NullDevice().step(decodes(1, [5], [0])).tokens == greedy
    assert NullDevice().step(decodes(1, [5], [0], position=1)).tokens != greedy


def test_tokens_are_spread_over_the_vocabulary() -> None:
    tokens = NullDevice(vocabulary_size=10).step(decodes(1, list(range(1000)), [-1] * 1000)).tokens
    assert np.bincount(tokens, minlength=10).min() > 50


def test_a_script_is_asked_for_each_sample() -> None:
    asked: list[Draw] = []

    def script(draw: Draw) -> int:
        asked.append(draw)
        return draw.token + 1

    device = NullDevice(script=script)
    assert device.step(decodes(1, [5, 8], [0, 1], position=4, seed=2)).tokens.tolist() == [6, 9]
    assert device.step(decodes(2, [-2, -1], [1, 0], position=5, seed=2)).tokens.tolist() == [10, 7]
    assert asked[2] == Draw(token=9, position=5, lane=1, draw=5, seed=2, temperature=1.0)


def test_masks_bind() -> None:
    batch = decodes(1, list(range(64)), [-1] * 64)
    allowed = np.zeros(1024, np.uint8)
    allowed[[700, 900]] = 1
    batch.masks = np.packbits(allowed, bitorder="little")[None]
    batch.sample_masks[:32] = 0
    tokens = NullDevice().step(batch).tokens
    assert set(tokens[:32].tolist()) <= {700, 900}
    assert tokens[32:].tolist() == NullDevice().step(decodes(1, list(range(64)), [-1] * 64)).tokens[32:].tolist()


def test_the_cost_is_what_the_model_says() -> None:
    batch = decodes(1, [1, 2], [0, 1], position=9)
    assert CostModel(5.0, 0.5, 0.25).seconds(batch) == pytest.approx((5 + 0.5 * 2 + 0.25 * 20) / 1000)
    assert NullDevice(cost=CostModel(60_000.0)).step(batch).seconds == 60.0


def test_probes_have_their_shapes_and_agree_with_each_other() -> None:
    batch = decodes(1, [1, 2], [0, 1])
    batch.probe_tokens = np.array([0, 0, 1, 1, 1], np.int32)
    batch.probe_kinds = np.array(
        [PROBE_TOP, PROBE_LOG_PROBABILITIES, PROBE_ENTROPY, PROBE_LOGITS, PROBE_TOP], np.int32
    )
    batch.probe_counts = np.array([3, 0, 0, 0, 99], np.int32)
    batch.asked_starts = np.array([0, 0, 2, 2, 2, 2], np.int32)
    batch.asked = np.array([4, 7], np.int32)
    result = NullDevice(vocabulary_size=8).step(batch)
    assert np.diff(result.probe_starts).tolist() == [4, 2, 1, 8, 9]
    assert np.diff(result.id_starts).tolist() == [3, 0, 0, 0, 8]
    assert (len(result.probe_values), len(result.probe_ids)) == (24, 11)
    top = result.probe_values[:4]
    assert np.exp(top[:3]).sum() + top[3] == pytest.approx(1)
    assert result.probe_values[6] == pytest.approx(np.log(8))


def test_an_empty_batch_is_answered() -> None:
    result = NullDevice().step(Batch(7))
    assert (result.step, len(result.tokens), result.error) == (7, 0, "")
