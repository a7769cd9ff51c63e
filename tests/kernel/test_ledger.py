"""The books of who was served how much."""

from __future__ import annotations

import pytest

from cadenza.kernel.ledger import Ledger
from cadenza.kernel.limits import USERS_REMEMBERED


def test_who_begins_to_wait_is_lifted_to_the_least_served_of_those_who_wait() -> None:
    ledger = Ledger()
    much, little = ledger.join("much", 0), ledger.join("little", 0)
    ledger.charge(much, 1000)
    ledger.charge(little, 300)
    assert ledger.join("idle", 0).account.served == 300


def test_who_waits_on_is_not_lifted_and_who_was_served_more_keeps_that() -> None:
    ledger = Ledger()
    first, other = ledger.join("ada", 0), ledger.join("bob", 0)
    ledger.charge(other, 500)
    assert ledger.join("ada", 1).account is first.account
    assert first.account.served == 0
    ledger.leave(other)
    assert ledger.join("bob", 0).account.served == 500


def test_when_nobody_waits_the_last_one_who_did_is_the_measure() -> None:
    ledger = Ledger()
    line = ledger.join("ada", 0)
    ledger.charge(line, 700)
    ledger.leave(line)
    assert ledger.join("bob", 0).account.served == 700


def test_a_line_is_passed_over_from_when_it_began_to_wait_or_was_last_fed() -> None:
    ledger = Ledger()
    ledger.now = 5.0
    line = ledger.join("ada", 3)
    assert (line.priority, line.served_at) == (3, 5.0)
    ledger.now = 6.0
    assert ledger.join("ada", 3) is line
    assert line.served_at == 5.0
    ledger.charge(line, 1)
    assert line.served_at == 6.0
    ledger.leave(line)
    ledger.leave(line)
    ledger.now = 9.0
    assert ledger.join("ada", 3).served_at == 9.0


def test_leaving_twice_is_a_bug() -> None:
    ledger = Ledger()
    line = ledger.join("ada", 0)
    ledger.leave(line)
    with pytest.raises(AssertionError, match="ada"):
        ledger.leave(line)


def test_idle_users_are_forgotten_when_there_are_too_many_and_waiting_ones_never() -> None:
    ledger = Ledger()
    waiting = ledger.join("ada", 0)
    ledger.charge(waiting, 10)
    for n in range(USERS_REMEMBERED + 5):
        ledger.leave(ledger.join(f"user {n}", 0))
    assert ledger.join("ada", 0) is waiting
    assert ledger.statistics() == {"users_waiting": 1, "inputs_waiting": 2}
