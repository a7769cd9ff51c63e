"""What the batcher promises: who is served first, who is not held up, and that nobody waits for ever."""

from __future__ import annotations

import random
from collections import Counter
from typing import Any

import pytest

from cadenza.kernel.batcher import KNOCKS, WorkConserving
from cadenza.kernel.breadth import PASS_READS, PLAIN
from cadenza.kernel.limits import AGING_SECONDS

from .fake_work import FakeEngine, FakeWork, tokens


class Plain:
    """A decode of which is known what every step must know, and nothing that it could be put in an order by."""

    steady, prefilling, admitted, missing, breadth, under_way = False, False, True, 0, PLAIN, 1

    def wanted(self) -> int:
        return 1


def engine(step_tokens: int = 64, step_rows: int = 16, beside_decodes: int = 32) -> FakeEngine:
    return FakeEngine(WorkConserving(step_tokens, step_rows, beside_decodes))


def test_everything_that_fits_goes_at_once_and_in_the_order_in_which_it_came() -> None:
    bench = engine()
    decodes = [bench.add("ada", 0, decodes=5, priority=n % 3) for n in range(9)]
    prompts = [bench.add("bob", 2, priority=n % 3) for n in range(5)]
    assert bench.step() == [*((work, 1) for work in decodes), *((work, 2) for work in prompts)]


def test_nothing_is_chosen_when_nobody_wants_anything() -> None:
    bench = engine()
    bench.work[FakeWork("ada", 0, 0)] = None
    assert bench.step() == []
    assert bench.policy.again(0.0) is None


def test_a_long_prompt_does_not_hold_up_short_ones() -> None:
    bench = engine()
    long = bench.add("ada", 2000)
    bench.run(3)
    shorts = [bench.add("ada", 10) for _ in range(3)]
    assert bench.step() == [(long, 34), *((short, 10) for short in shorts)]
    assert bench.step() == [(long, 64)]


def test_nor_do_short_ones_hold_up_a_long_one() -> None:
    bench = engine()
    long = bench.add("ada", 640)
    for _ in range(20):
        assert long.prefilling
        for _ in range(8):
            bench.add("ada", 16)
        assert bench.step()[0] == (long, 32)
    assert not long.prefilling


def test_long_prompts_do_not_stretch_the_steps_of_those_who_decode() -> None:
    bench = engine(step_tokens=2048, step_rows=1024, beside_decodes=384)
    for _ in range(20):
        bench.add("ada", 8000)
    assert sum(count for _, count in bench.step()) == 2048
    for _ in range(100):
        bench.add("bob", 0, decodes=1000)
    assert sum(count for _, count in bench.step()) == 384
    for _ in range(900):
        bench.add("bob", 0, decodes=1000)
    rows = bench.step()
    assert tokens(rows, "ada") == 384 // 4
    assert tokens(rows, "bob") == 1024 - 1024 // 4


def test_priority_goes_first_and_gets_the_rest_too() -> None:
    bench = engine()
    low = [bench.add("ada", 100) for _ in range(3)]
    bench.step()
    high = bench.add("ada", 100, priority=5)
    assert bench.step() == [(high, 64)]
    assert bench.step()[0] == (high, 36)
    assert sum(100 - work.left for work in low) == 64 + 28


def test_who_was_passed_over_for_long_goes_first_once() -> None:
    bench = engine()
    bench.add("ada", 10_000, priority=5)
    low = bench.add("ada", 1000)
    steps = round(AGING_SECONDS / bench.seconds)
    bench.run(steps)
    assert low.left == 1000
    bench.run(2)
    assert low.left == 1000 - 32
    bench.run(steps - 3)
    assert low.left == 1000 - 32


def test_users_are_served_alike_however_much_they_ask_for() -> None:
    bench = engine()
    for _ in range(200):
        bench.add("many", 500)
    lone = bench.add("one", 5000)
    bench.run(100)
    assert 5000 - lone.left >= 0.45 * 100 * 64


def test_having_been_idle_is_worth_nothing() -> None:
    bench = engine()
    for _ in range(200):
        bench.add("busy", 500)
    bench.run(50)
    back = bench.add("idle", 5000)
    served = Counter[str]()
    for _ in range(40):
        for work, count in bench.step():
            served[work.owner] += count
    assert served["busy"] >= 0.4 * served.total()
    assert back.prefilling


def test_a_user_of_short_prompts_cannot_crowd_out_one_of_long_ones() -> None:
    bench = engine()
    long = bench.add("patient", 4000)
    for _ in range(60):
        for _ in range(20):
            bench.add("hasty", 8)
        bench.step()
    assert 4000 - long.left >= 0.45 * 60 * 64


def test_nor_two_of_them() -> None:
    bench = engine()
    for owner in ("patient", "calm"):
        bench.add(owner, 50_000)
    served = Counter[str]()
    for _ in range(200):
        for _ in range(10):
            bench.add("hasty", 8)
        for work, count in bench.step():
            served[work.owner] += count
    assert served["hasty"] <= 0.37 * served.total()


def test_decodes_take_turns_when_there_are_more_than_rows_and_users_have_as_many_each() -> None:
    bench = engine(step_rows=16)
    for _ in range(100):
        bench.add("many", 0, decodes=1000)
    lone = [bench.add("one", 0, decodes=1000) for _ in range(6)]
    bench.step()
    before = Counter({work: work.decodes for work in lone})
    bench.run(20)
    assert all(before[work] - work.decodes >= 18 for work in lone)
    bench.run(30)
    assert {work.decodes < 1000 for work in bench.work} == {True}


def test_a_lower_priority_has_a_quarter_of_the_rows_at_least() -> None:
    bench = engine(step_rows=16)
    for _ in range(16):
        bench.add("ada", 0, decodes=1000, priority=1)
    low = bench.add("ada", 0, decodes=1000)
    bench.run(50)
    assert 1 <= 1000 - low.decodes <= 50 * 16 / 17 + 1
    assert 1000 - low.decodes >= 50 // 5


def test_inputs_have_a_part_of_the_rows_however_many_decode() -> None:
    bench = engine(step_tokens=16, step_rows=16, beside_decodes=16)
    for _ in range(50):
        bench.add("ada", 0, decodes=1000)
    prompt = bench.add("bob", 40)
    bench.run(10)
    assert not prompt.prefilling


def test_what_reads_many_segments_takes_turns() -> None:
    bench = engine(step_rows=1024, step_tokens=2048)
    wide = [bench.add("ada", 0, decodes=1000, reads=PASS_READS // 2) for _ in range(7)]
    prompt = bench.add("ada", 1, reads=PASS_READS)
    bench.run(20)
    assert not prompt.prefilling
    assert {1000 - work.decodes for work in wide} <= {4, 5, 6, 7}


def test_nobody_overtakes_who_was_turned_away_and_he_costs_the_step_nothing() -> None:
    bench = engine()
    first = bench.add("ada", 5000)
    outside = [bench.add("ada", 10) for _ in range(20)]
    inside = bench.add("ada", 500)
    for work in (first, *outside):
        work.admitted = False
    first.turned_away = True
    shares = bench.step()
    assert shares[0][0] is inside
    assert shares[0][1] >= 64 - KNOCKS
    assert shares[1:] == [(first, 1), *((work, 1) for work in outside[: KNOCKS - 1])]


def test_who_comes_with_a_higher_priority_is_let_in_before_who_was_turned_away() -> None:
    bench = engine()
    first, second = bench.add("ada", 5000), bench.add("ada", 10, priority=1)
    first.admitted = second.admitted = False
    first.turned_away = True
    assert bench.step() == [(second, 10), (first, 1)]


def test_the_first_to_be_let_in_of_each_user_comes_before_the_second_of_any() -> None:
    bench = engine(step_tokens=2048)
    works = [bench.add("ada", 9), bench.add("ada", 9), bench.add("bob", 9), bench.add("ada", 9, priority=1)]
    for work in works:
        work.admitted = False
    assert [work for work, _ in bench.step()] == [works[3], works[0], works[2], works[1]]


def test_a_decode_whose_pages_were_lost_is_fed_them_like_any_input() -> None:
    bench = engine()
    work = bench.add("ada", 1, decodes=100)
    bench.step()
    work.missing = 80
    assert bench.policy.choose(bench.work, 0.0) == [(work, 64)]  # type: ignore[arg-type]


def test_nothing_is_put_in_order_when_everything_fits() -> None:
    policy = WorkConserving(2048, 1024)
    decodes: list[Any] = [Plain() for _ in range(1024)]
    assert policy.choose(decodes, 0.0) == [(work, 1) for work in decodes]
    with pytest.raises(AttributeError):
        policy.choose([*decodes, Plain()], 0.0)  # type: ignore[list-item]


@pytest.mark.parametrize("seeds", [range(first, first + 100) for first in range(0, 1000, 100)])
def test_nobody_starves(seeds: range) -> None:
    """The bounds of docs/scheduling.md, over random arrivals, lengths, priorities and users."""
    for seed in seeds:
        check_bounds(random.Random(seed))


def check_bounds(chosen: random.Random) -> None:
    policy = WorkConserving(chosen.choice([8, 64, 256]), chosen.choice([4, 16, 64]), chosen.choice([4, 32, 128]))
    bench = FakeEngine(policy, seconds=chosen.choice([0.005, 0.02, 0.2]))
    users, priorities, most_decodes = chosen.randint(1, 5), chosen.randint(1, 4), 0
    turns = -(-min(n - max(1, n // 4) for n in (policy.step_rows, policy.step_tokens)) // 4)
    for _ in range(40):
        for _ in range(chosen.choice([0, 1, 1, 3])):
            bench.add(f"user {chosen.randrange(users)}", chosen.choice([0, 1, 7, 60, 700]),
                      priority=chosen.randrange(priorities), decodes=chosen.choice([1, 10, 1000]))
        decodes = [work for work in bench.work if not work.prefilling]
        most_decodes = max(most_decodes, len(decodes))
        bench.step()
        longest_line = AGING_SECONDS + (users * priorities + 1) * bench.seconds
        assert all(bench.now - work.line.served_at <= longest_line for work in bench.work if work.prefilling)
        longest_turn = -(-most_decodes // turns) + 1
        assert all(bench.steps - work.turn <= longest_turn for work in decodes if work.wanted())
