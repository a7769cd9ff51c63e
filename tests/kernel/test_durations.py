"""How long tools take, and what programs wait for."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cadenza.kernel.costs import Costs, fitted
from cadenza.kernel.device.local_link import LocalLink
from cadenza.kernel.device.null_device import CostModel, NullDevice
from cadenza.kernel.durations import ENOUGH, Durations, ToolTimes
from cadenza.kernel.limits import TOOLS_PER_USER, ProcessLimits
from cadenza.kernel.process import Process
from cadenza.kernel.profile import profile
from cadenza.kernel.virtual_clock import simulate
from cadenza.kernel.waits import Intent, Waits


def of(*seconds: float) -> Durations:
    durations = Durations()
    for each in seconds:
        durations.observe(each)
    return durations


def test_what_has_outlasted_the_short_calls_is_a_long_one() -> None:
    """The hazard falls: after a second, of calls of 0.1 and 60 seconds only the long ones are left."""
    durations = of(*[0.1] * 90, *[60.0] * 10)
    assert durations.remaining(0.0) == pytest.approx(6.0, rel=0.2)
    assert durations.remaining(1.0) == pytest.approx(59.0, rel=0.2)
    assert durations.within(0.0, 0.2) == pytest.approx(0.9)
    assert durations.within(1.0, 10.0) == 0.0
    assert durations.within(1.0, 80.0) == 1.0


def test_of_what_outlasts_everything_it_is_thought_that_it_takes_as_long_again() -> None:
    assert of(1.0, 2.0).remaining(30.0) == 30.0


@given(st.lists(st.floats(1e-6, 1e5), min_size=1, max_size=50), st.floats(0, 1e5), st.floats(1e-3, 1e3))
@settings(deadline=None)
def test_forecasts_are_possible(seconds: list[float], elapsed: float, horizon: float) -> None:
    durations = of(*seconds)
    assert durations.remaining(elapsed) >= 0
    assert 0 <= durations.within(elapsed, horizon) <= 1
    assert durations.within(elapsed, horizon) <= durations.within(elapsed, 10 * horizon) + 1e-9


def test_guesses_are_believed_until_they_have_proved_wrong() -> None:
    times = ToolTimes()
    forecast = times.forecast("ada", "search", 0.0, 10.0)
    assert forecast.remaining(0.0) == pytest.approx(10.0, rel=0.05)
    assert forecast.within(9.0, 0.4) == 0.0
    assert forecast.within(9.0, 1.2) == 1.0
    for _ in range(ENOUGH):
        times.observe("ada", "search", 40.0, expected=10.0)
    assert times.forecast("ada", "search", 0.0, 10.0).remaining(0.0) == pytest.approx(40.0, rel=0.2)
    assert times.forecast("ada", "search", 0.0, 1.0).remaining(0.0) == pytest.approx(4.0, rel=0.2)
    assert times.forecast("ada", "search", 0.0).remaining(0.0) == pytest.approx(40.0, rel=0.2)


def test_one_users_calls_tell_nothing_of_anothers_and_tools_are_forgotten() -> None:
    times = ToolTimes()
    for _ in range(ENOUGH):
        times.observe("ada", "search", 40.0)
    assert times.mean("ada", "search") == pytest.approx(40.0, rel=0.2)
    assert times.mean("bob", "search") is None
    for number in range(TOOLS_PER_USER):
        times.observe("ada", f"tool {number}", 1.0)
    assert times.mean("ada", "search") is None


def process(waits: Waits) -> Process:
    nobody: Any = None
    return Process(1, "ada", nobody, "{}", ProcessLimits(), close_file=nobody, waits=waits,
                   on_ready=lambda p: None, on_end=lambda p: None)


def test_a_wait_for_all_lasts_as_long_as_the_longest_and_one_for_any_as_the_shortest() -> None:
    async def test() -> None:
        waits = Waits()
        program = process(waits)
        intents = [Intent(1, "quick", 1.0), Intent(2, "slow", 100.0)]
        for every, expected in ((True, 100.0), (False, 1.0)):
            waits.begin(program, intents, every=every)
            assert waits.waiting[program].remaining(0.0) == pytest.approx(expected, rel=0.1)
            waits.end(program, [])
        assert not waits.waiting
    simulate(test())


def test_a_call_is_timed_from_the_first_wait_that_names_it_to_the_one_that_answers_it() -> None:
    async def test() -> None:
        waits = Waits()
        program = process(waits)
        for _ in range(ENOUGH):
            waits.begin(program, [Intent(7, "long"), Intent(8, "short")], every=False)
            await asyncio.sleep(2.0)
            waits.end(program, [8])
            await asyncio.sleep(3.0)
            waits.begin(program, [Intent(7, "long")], every=False)
            assert str(waits.waiting[program]) == "long"
            await asyncio.sleep(5.0)
            waits.end(program, [7])
        assert waits.times.mean("ada", "short") == pytest.approx(2.0, rel=0.2)
        assert waits.times.mean("ada", "long") == pytest.approx(10.0, rel=0.2)
    simulate(test())


def test_what_is_certain_teaches_nothing_and_is_known_to_the_end() -> None:
    async def test() -> None:
        waits = Waits()
        program = process(waits)
        waits.begin(program, [Intent(1, "timer", 30.0, certain=True)], every=False)
        await asyncio.sleep(20.0)
        assert waits.waiting[program].remaining(20.0) == pytest.approx(10.0)
        assert waits.waiting[program].within(20.0, 9.0) == 0.0
        assert waits.waiting[program].within(20.0, 11.0) == 1.0
        waits.end(program, [1])
        assert waits.times.mean("ada", "timer") is None
    simulate(test())


def test_constants_are_found_out_from_the_device() -> None:
    async def test() -> Costs:
        cost = CostModel(fixed_ms=10.0, per_token_ms=0.05, saturation_tokens=384, per_moved_page_ms=0.5,
                         overlapped=True)
        return await profile(LocalLink(NullDevice(pages=256, host_pages=64, cost=cost)))

    costs = simulate(test())
    assert costs.fixed == pytest.approx(0.01)
    assert costs.per_token == pytest.approx(5e-5)
    assert costs.saturation == 384
    assert costs.page_seconds == pytest.approx(5e-4)
    assert costs.forward(400) == pytest.approx(0.0108)
    assert costs.pages_within(0.01) == 20


def test_a_device_without_saturation_makes_steps_three_times_as_long() -> None:
    costs = fitted([(1, 0.01), (16, 0.0115), (256, 0.0355)], 1e-4)
    assert costs.saturation <= 2
    assert costs.beside_decodes == pytest.approx(201, abs=3)


def test_two_steps_are_enough_where_the_second_was_already_long() -> None:
    costs = fitted([(16, 0.26), (1, 0.11)], 1e-4)
    assert (costs.fixed, costs.per_token) == (0.11, pytest.approx(0.01))
    assert costs.forward(16) == pytest.approx(0.26)
