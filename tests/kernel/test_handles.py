"""The table of handles, the wait, and what ends once."""

from __future__ import annotations

import pytest

from cadenza.kernel.handles import HandleTable, Outcome, Timer, Wait, Waitable, unique
from cadenza.kvfs.errors import Cancelled, Invalid, LimitExceeded, NotFound


class Switch(Waitable):
    """Ready when the test says so; counts its closes."""

    def __init__(self, *, ready: bool = False) -> None:
        super().__init__()
        self.ready = ready
        self.closed = 0

    def close(self) -> None:
        self.closed += 1


def started(*waitables: Switch, every: bool = False) -> tuple[Wait, list[int]]:
    """A wait for them, numbered from 1, and a list that grows when it ends."""
    wait = Wait(range(1, len(waitables) + 1), waitables, every=every)
    wakes: list[int] = []
    wait.subscribe(lambda: wakes.append(1))
    return wait, wakes


# --- the table ---

def test_numbers_are_never_used_twice() -> None:
    table = HandleTable(2)
    first = table.add(Switch())
    table.close(first)
    second, third = table.add(Switch()), table.add(Switch())
    assert len({first, second, third}) == 3
    assert len(table) == 2


def test_a_handle_is_found_as_what_it_is() -> None:
    table = HandleTable(2)
    switch = Switch()
    number = table.add(switch)
    assert table.get(number, Switch) is table.get(number, Waitable) is switch
    with pytest.raises(NotFound, match="as a timer"):
        table.get(number, Timer)
    with pytest.raises(NotFound, match="handle 0 "):
        table.get(0, Waitable)


def test_the_table_takes_so_many_and_no_more() -> None:
    table = HandleTable(2)
    first, _ = table.add(Switch()), table.add(Switch())
    for call in (table.ensure_room, lambda: table.add(Switch())):
        with pytest.raises(LimitExceeded, match="2 handles") as refused:
            call()
        assert refused.value.limit == "handles"
    table.close(first)
    table.ensure_room()


def test_closing_closes_what_the_handle_names_once() -> None:
    table = HandleTable(9)
    switches = [Switch() for _ in range(3)]
    numbers = [table.add(switch) for switch in switches]
    table.close(numbers[0])
    with pytest.raises(NotFound, match="is not open"):
        table.close(numbers[0])
    table.close_all()
    table.close_all()
    assert [switch.closed for switch in switches] == [1, 1, 1]
    assert len(table) == 0


# --- the wait ---

def test_what_is_ready_needs_no_wait() -> None:
    ready, pending = Switch(ready=True), Switch()
    assert Wait([7, 8], [pending, ready], every=False).answer_now() == [8]
    assert Wait([7, 8], [pending, ready], every=True).answer_now() is None
    assert Wait([7, 8], [ready, ready], every=True).answer_now() == [7, 8]


def test_any_ends_with_the_first() -> None:
    one, two = Switch(), Switch()
    wait, wakes = started(one, two)
    assert not wakes
    two.signal()
    one.signal()
    assert (wakes, wait.answer()) == ([1], [2])
    assert one.watcher is two.watcher is None


def test_all_ends_with_the_last_whatever_the_order() -> None:
    switches = [Switch() for _ in range(3)]
    wait, wakes = started(*switches, every=True)
    for switch in (switches[2], switches[0]):
        switch.signal()
        switch.signal()
        assert not wakes
    switches[1].signal()
    assert (wakes, wait.answer()) == ([1], [1, 2, 3])


def test_one_that_is_ready_at_subscription_counts() -> None:
    one, two = Switch(ready=True), Switch()
    wait, wakes = started(one, two, every=True)
    two.signal()
    assert (wakes, wait.answer()) == ([1], [1, 2])
    assert started(one, two)[1] == [1]


def test_all_means_ready_at_once_not_one_after_the_other() -> None:
    one, two = Switch(), Switch()
    wait, wakes = started(one, two, every=True)
    one.signal()
    one.unsignal()
    two.signal()
    assert not wakes
    one.signal()
    assert (wakes, wait.answer()) == ([1], [1, 2])


def test_all_is_not_fooled_by_one_that_comes_and_goes() -> None:
    one, two = Switch(), Switch()
    _, wakes = started(one, two, every=True)
    for _ in range(3):
        one.signal()
        one.unsignal()
    assert not wakes


def test_all_with_one_thing_under_two_numbers() -> None:
    one = Switch()
    wait, wakes = started(one, one, every=True)
    one.signal()
    assert (wakes, wait.answer()) == ([1], [1, 2])


def test_an_expired_wait_answers_what_is_ready_and_its_timer_is_cancelled() -> None:
    one, two = Switch(ready=True), Switch()
    wait, wakes = started(one, two, every=True)
    cancelled: list[int] = []
    wait.expire_with(lambda: cancelled.append(1))
    wait.expire()
    wait.expire()
    two.signal()
    assert (wakes, cancelled, wait.answer()) == ([1], [1], [1])


def test_a_wait_for_nothing_lasts_until_it_expires() -> None:
    wait, wakes = started()
    assert not wakes
    wait.expire()
    assert (wakes, wait.answer()) == ([1], [])


def test_an_abandoned_wait_wakes_nobody() -> None:
    one = Switch()
    wait, wakes = started(one)
    cancelled: list[int] = []
    wait.expire_with(lambda: cancelled.append(1))
    wait.abandon()
    wait.abandon()
    one.signal()
    assert (wakes, cancelled, one.watcher) == ([], [1], None)


def test_unique_keeps_the_order() -> None:
    assert unique([3, 1, 3, 2, 1]) == [3, 1, 2]


# --- what ends once ---

def test_an_outcome_is_a_value_an_error_or_nothing_yet() -> None:
    value: Outcome[int] = Outcome()
    with pytest.raises(Cancelled):
        value.take()
    value.succeed(0)
    assert value.ready
    assert value.take() == value.take() == 0
    error: Outcome[int] = Outcome()
    error.fail(Invalid("wrong"))
    assert error.ready
    with pytest.raises(Invalid, match="wrong"):
        error.take()


def test_closing_a_timer_takes_its_callback_back() -> None:
    timer, cancelled = Timer(0.0), []
    timer.cancel = lambda: cancelled.append(1)
    timer.close()
    assert cancelled == [1]
    Timer(0.0).close()
