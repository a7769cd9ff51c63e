"""Sampling and probes where the logits are, against what the CPU's say; how logarithms change their base."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cadenza.kernel.device import probing, sampling
from cadenza.kernel.device.batch import (
    PROBE_ENTROPY,
    PROBE_HIDDEN,
    PROBE_LOG_PROBABILITIES,
    PROBE_LOGITS,
    PROBE_TOP,
    Batch,
    StepResult,
)
from cadenza.kernel.device.flashinfer import gpu_probing, gpu_sampling
from cadenza.kernel.device.flashinfer.planned_attention import NOTHING, beside_sinks, natural
from cadenza.kernel.device.penalties import Histories

from .dense import CONFIG, small_device
from .driver import Driver, File, Row
from .reference_kernels import flash_device
from .test_torch_sampling import reference

VOCABULARY = 3000                # more than a block of sums, and than the first of a nucleus


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.floats(-8, 8, width=32), min_size=1, max_size=24),
    st.one_of(st.just(0.0), st.floats(0.0625, 4, width=32)),
    st.integers(0, 30),
    st.one_of(st.just(1.0), st.floats(0, 1, width=32)),
    st.one_of(st.just(0.0), st.floats(0, 1, width=32)),
    st.integers(0, 1 << 40),
)
def test_a_token_is_drawn_as_the_definition_says(
    logits: list[float], temperature: float, top_k: int, top_p: float, min_p: float, seed: int
) -> None:
    batch = samplers(temperature=[temperature], top_k=[top_k], top_p=[top_p], min_p=[min_p], seeds=[seed])
    uniform = float(sampling.uniforms(batch.seeds, batch.draws)[0])
    expected = reference(logits, temperature, top_k, top_p, min_p, uniform)
    assert gpu_sampling.sample(batch, torch.tensor([logits]), np.array([0]), Histories()).tolist() == [expected]


def samplers(**fields: list[float]) -> Batch:
    count = len(fields["temperature"])
    whole = {"top_k": [0] * count, "top_p": [1.0] * count, "min_p": [0.0] * count, "seeds": range(count),
             "draws": [3] * count, "sample_masks": [-1] * count, **fields}  # fmt: skip
    return Batch(1, **{name: np.array(values, getattr(Batch(0), name).dtype) for name, values in whole.items()})


def test_many_samples_of_one_step_are_those_of_the_oracle() -> None:
    """Of every kind side by side, masks among them, over a large vocabulary."""
    random, count = np.random.default_rng(1), 96
    logits = (random.normal(size=(count, VOCABULARY)) * 3).astype(np.float32)
    batch = samplers(
        temperature=random.choice([0.0, 0.3, 1.0, 2.0], count).tolist(),
        top_k=random.choice([0, 1, 5, 40, VOCABULARY, 9999], count).tolist(),
        top_p=random.choice([1.0, 0.1, 0.9, 0.999999], count).tolist(),
        min_p=random.choice([0.0, 0.02], count).tolist(),
        sample_masks=random.choice([-1, 0, 1], count).tolist(),
    )
    allowed = np.zeros((2, VOCABULARY), np.uint8)
    allowed[0, ::7], allowed[1, 2990:] = 1, 1
    batch.masks = np.packbits(allowed, axis=1, bitorder="little")
    rows = random.permutation(count)
    found = gpu_sampling.sample(batch, torch.from_numpy(logits), rows, Histories())
    expected = sampling.sample(batch, logits, rows, Histories())
    assert (found == expected).mean() >= 0.98, "but for draws on the edge between two tokens"
    masked = batch.sample_masks == 1
    assert (found[masked] >= 2990).all()


def test_biases_and_penalties_are_the_oracles_from_step_to_step() -> None:
    """Histories that are told, of lanes, bounded by windows; biases that some samples share."""
    random, count = np.random.default_rng(5), 12
    ours, oracle = Histories(), Histories()
    for step in range(6):
        batch = samplers(temperature=random.choice([0.0, 1.0], count).tolist(), draws=[step] * count)
        batch.sample_lanes = np.array([*range(8), -1, -1, -1, -1], np.int32)
        batch.sample_biases = random.integers(-1, 3, count).astype(np.int32)
        batch.bias_starts = np.array([0, 2, 2, 5], np.int32)
        batch.bias_tokens = np.array([4, 9, 1, 2, 3], np.int32)
        batch.bias_values = np.array([9.0, -5.0, 3.0, -9.0, 0.5], np.float32)
        batch.penalties = random.choice([1.0, 1.3, 2.0], (count, 3)).astype(np.float32)
        batch.penalties[::5] = (1.0, 0.0, 0.0)
        batch.windows = np.array([0, 3] * 6, np.int32)
        told = [0 if 0 < step != n and n < 8 else 1 + n for n in range(count)]
        batch.told_starts = np.cumsum([0, *told]).astype(np.int32)
        batch.told = random.integers(0, 20, sum(told)).astype(np.int32)
        logits = random.normal(size=(count, 20)).astype(np.float32)
        if step == 0:
            batch.penalties[:8] = (1.2, 0.5, 0.1)
        found = gpu_sampling.sample(batch, torch.from_numpy(logits), np.arange(count), ours)
        np.testing.assert_array_equal(found, sampling.sample(batch, logits, np.arange(count), oracle))


def test_scores_and_hidden_states_are_the_oracles() -> None:
    tokens, answers = list(range(3, 20)), []
    with flash_device() as ours, small_device() as oracle:
        assert ours.facts.hidden_size == oracle.facts.hidden_size == CONFIG.hidden
        for device in (ours, oracle):
            batch = Driver(device).batch([Row(File(), tokens), Row(File(), tokens[:5])], [])
            batch.score_tokens, batch.score_targets = np.arange(22, dtype=np.int32), np.arange(22, dtype=np.int32)
            batch.probe_tokens, batch.probe_kinds = np.array([4, 20], np.int32), np.full(2, PROBE_HIDDEN, np.int32)
            batch.probe_counts, batch.asked_starts = np.zeros(2, np.int32), np.zeros(3, np.int32)
            answers.append(device.step(batch))
    np.testing.assert_allclose(answers[0].scores, answers[1].scores, atol=1e-5)
    np.testing.assert_allclose(answers[0].probe_values, answers[1].probe_values, atol=1e-5)


def test_equal_logits_are_taken_in_the_order_of_ids() -> None:
    batch = samplers(temperature=[0.0, 0.0])
    logits = torch.tensor([[1.0, 2.0, 2.0, 0.0], [3.0, 3.0, 3.0, 3.0]])
    assert gpu_sampling.sample(batch, logits, np.array([0, 1]), Histories()).tolist() == [1, 0]


def test_bits_are_unpacked_in_the_order_of_a_batch() -> None:
    allowed = np.random.default_rng(2).integers(0, 2, (3, 21)).astype(np.uint8)
    packed = torch.from_numpy(np.packbits(allowed, axis=1, bitorder="little"))
    np.testing.assert_array_equal(gpu_sampling.unpacked(packed, 21).numpy(), allowed.astype(np.bool_))


def test_probes_say_what_the_oracles_say() -> None:
    logits = np.round(np.random.default_rng(3).normal(size=(3, 50)), 1).astype(np.float32)      # some are equal
    states = np.random.default_rng(4).normal(size=(2, 9)).astype(np.float32)
    kinds = [PROBE_TOP, PROBE_LOGITS, PROBE_ENTROPY, PROBE_LOG_PROBABILITIES, PROBE_TOP, PROBE_HIDDEN]
    batch = Batch(
        1,
        probe_kinds=np.array(kinds, np.int32),
        probe_counts=np.array([7, 0, 0, 0, 99, 0], np.int32),
        asked_starts=np.array([0, 0, 0, 0, 3, 3, 3], np.int32),
        asked=np.array([4, 49, 4], np.int32),
    )
    rows = np.array([0, 1, 1, 2, 2, 1])
    found, expected = StepResult(1), StepResult(1)
    gpu_probing.probe(batch, torch.from_numpy(logits), torch.from_numpy(states), rows, found)
    probing.probe(batch, logits, states, rows, expected)
    for name in ("probe_starts", "id_starts", "probe_ids"):
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))
    np.testing.assert_allclose(found.probe_values, expected.probe_values, atol=1e-6)


def test_logarithms_change_their_base_at_the_boundary() -> None:
    scores = torch.randn(5, 9, dtype=torch.float64)
    to_base_2 = torch.log2(torch.exp(scores).sum(1))
    torch.testing.assert_close(natural(to_base_2), torch.logsumexp(scores, 1))


def test_a_sink_is_one_more_weight_that_reads_nothing() -> None:
    scores, values, sink = torch.randn(7), torch.randn(7, 4), torch.tensor([0.4])
    logs = (torch.logsumexp(scores, 0) / math.log(2)).view(1, 1)
    found = beside_sinks((scores.softmax(0) @ values).view(1, 1, 4), logs, sink)
    expected = torch.cat((scores, sink)).softmax(0)[:7] @ values
    torch.testing.assert_close(found[0, 0], expected)


def test_who_read_nothing_reads_zeros_beside_a_sink() -> None:
    found = beside_sinks(torch.zeros(1, 1, 4), torch.full((1, 1), NOTHING), torch.tensor([-50.0]))
    assert found.tolist() == [[[0.0] * 4]]


@pytest.mark.parametrize("past", [False, True])
def test_where_a_sum_is_reached(past: bool) -> None:
    weights = torch.zeros(2, 2500)
    weights[0, [3, 1500, 2400]] = 1.0
    weights[1, 2499] = 2.0
    goals = torch.tensor([2.0, 2.0], dtype=torch.float64)
    assert gpu_sampling.where_reached(weights, goals, past).tolist() == ([2400, 2499] if past else [1500, 2499])
