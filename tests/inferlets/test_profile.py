"""What is foreseen of a task in either manner, and what is chosen."""

from __future__ import annotations

from itertools import repeat

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cadenza.inferlets.async_calls.profile import MARKS, TRAP, Profile, chains_of

TIMES = st.lists(st.lists(st.floats(0.001, 5.0), min_size=1, max_size=5), min_size=1, max_size=4)


def profile(*shapes: tuple[int, ...]) -> Profile:
    """Calls of ten tokens, ten milliseconds each."""
    known = Profile(call_tokens=10.0, token_seconds=0.01)
    known.shapes.extend(shapes)
    return known


def test_a_shape_becomes_chains() -> None:
    assert chains_of((3, 2, 1), repeat(1.0)) == [[1.0, 1.0, 1.0], [1.0, 1.0], [1.0]]


def test_one_call_is_said_and_waited_for() -> None:
    assert profile().parallel_seconds([[0.5]]) == pytest.approx(0.11 + 0.01 + 0.5)
    assert profile().asynchronous_seconds([[0.5]]) == pytest.approx((10 + MARKS) * 0.01 + 0.5)


def test_what_runs_while_the_model_speaks_costs_nothing() -> None:
    said = (10 + MARKS) * 0.01
    assert profile().asynchronous_seconds([[0.3], [0.01], [0.01]]) == pytest.approx(3 * said + TRAP * 0.01)


@pytest.mark.parametrize("shape", [(4,), (3, 3, 3)])
def test_what_takes_long_is_asynchronous_and_what_is_done_at_once_is_not(shape: tuple[int, ...]) -> None:
    known = profile(shape)
    assert not known.asynchronous_is_faster([0.001])
    assert known.asynchronous_is_faster([1.0, 0.2, 0.5])


def test_nothing_is_gained_by_waiting_for_a_single_call() -> None:
    assert not profile((1,)).asynchronous_is_faster([2.0])


@given(TIMES)
def test_neither_is_faster_than_speech_and_the_longest_chain(chains: list[list[float]]) -> None:
    known, calls = profile(), sum(map(len, chains))
    least = max(0.1 * calls, max(map(sum, chains)))
    assert known.asynchronous_seconds(chains) >= least
    assert known.parallel_seconds(chains) >= least
