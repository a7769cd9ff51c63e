"""Mailboxes, topics and queues: bounded, and nothing is lost silently."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cadenza.kernel.channels import Account, Exchange, Mailbox, Message, size_of
from cadenza.kernel.limits import QUEUE_MESSAGES, QUEUED_BYTES_PER_USER, QUEUES_PER_USER
from cadenza.kvfs.errors import Full, LimitExceeded


def full_mailbox() -> Mailbox:
    mailbox = Mailbox(Account())
    for n in range(QUEUE_MESSAGES):
        assert mailbox.offer(str(n))
    return mailbox


def test_a_mailbox_is_ready_while_it_holds_something() -> None:
    mailbox = Mailbox(Account())
    assert not mailbox.ready
    mailbox.put("a")
    mailbox.offer("b")
    assert mailbox.take() == Message("a", 0)
    assert mailbox.ready
    assert mailbox.take() == Message("b", 0)
    assert not mailbox.ready
    assert mailbox.take() is None


def test_what_a_full_mailbox_is_offered_is_counted_and_told_once() -> None:
    mailbox = full_mailbox()
    assert not mailbox.offer("lost")
    assert not mailbox.offer("lost too")
    mailbox.take()
    assert mailbox.offer("kept")
    mailbox.take()
    assert mailbox.offer("next")
    taken = [mailbox.take() for _ in range(QUEUE_MESSAGES)]
    assert taken[-2:] == [Message("kept", 2), Message("next", 0)]


def test_what_a_full_mailbox_refuses_is_not_lost() -> None:
    mailbox = full_mailbox()
    with pytest.raises(Full) as refused:
        mailbox.put("refused")
    assert refused.value.limit == "queue_messages"
    mailbox.take()
    mailbox.put("again")
    assert [mailbox.take() for _ in range(QUEUE_MESSAGES)][-1] == Message("again", 0)


@given(st.lists(st.booleans(), max_size=60))
def test_every_offer_is_delivered_or_counted(moves: list[bool]) -> None:
    mailbox = Mailbox(Account())
    for _ in range(QUEUE_MESSAGES - 5):
        mailbox.offer("before")
    offered = taken = lost = 0
    for offers in moves:
        if offers:
            offered += 1
            mailbox.offer("x")
        elif (message := mailbox.take()) is not None:
            taken, lost = taken + 1, lost + message.lost
    while (message := mailbox.take()) is not None:
        taken, lost = taken + 1, lost + message.lost
    mailbox.offer("last")
    last = mailbox.take()
    assert last is not None
    assert taken + lost + last.lost == QUEUE_MESSAGES - 5 + offered


def test_a_topic_lives_with_its_subscribers() -> None:
    exchange = Exchange()
    one, two = exchange.subscribe("ada", "news"), exchange.subscribe("ada", "news")
    assert exchange.publish("ada", "news", "hello") == 2
    one.close()
    one.close()
    assert exchange.publish("ada", "news", "again") == 1
    assert [two.take(), two.take()] == [Message("hello"), Message("again")]
    two.close()
    assert exchange.statistics() == {"topics": 0, "queues": 0, "queued_bytes": 0}


def test_a_queue_lives_while_it_holds_a_message_or_has_a_taker() -> None:
    exchange = Exchange()
    taker = exchange.queue("ada", "jobs").join()
    exchange.queue("ada", "jobs").put("one")
    taker.close()
    assert exchange.statistics()["queues"] == 1
    again = exchange.queue("ada", "jobs").join()
    assert again.ready
    assert again.take() == Message("one")
    again.close()
    assert exchange.statistics()["queues"] == 0


def test_closing_a_taker_twice_leaves_the_next_queue_of_that_name() -> None:
    exchange = Exchange()
    old = exchange.queue("ada", "jobs").join()
    old.close()
    exchange.queue("ada", "jobs").put("of the new one")
    old.close()
    assert exchange.queue("ada", "jobs").join().take() == Message("of the new one")


def test_every_taker_is_told_and_one_takes() -> None:
    exchange = Exchange()
    queue = exchange.queue("ada", "jobs")
    one, two = queue.join(), queue.join()
    queue.put("a")
    assert one.ready
    assert two.ready
    assert one.take() == Message("a")
    assert not two.ready
    assert two.take() is None


def test_a_queue_refuses_past_its_limit() -> None:
    queue = Exchange().queue("ada", "jobs")
    for n in range(QUEUE_MESSAGES):
        queue.put(str(n))
    with pytest.raises(Full, match="'jobs'"):
        queue.put("one too many")
    taker = queue.join()
    assert [taker.take() for _ in range(QUEUE_MESSAGES + 1)][-2:] == [Message(str(QUEUE_MESSAGES - 1)), None]


def test_users_have_their_own_names_and_their_own_limit() -> None:
    exchange = Exchange()
    for n in range(QUEUES_PER_USER):
        exchange.queue("ada", str(n)).put("x")
    with pytest.raises(LimitExceeded):
        exchange.queue("ada", "more")
    taker = exchange.queue("bob", "0").join()
    assert taker.take() is None
    assert exchange.publish("bob", "news", "x") == 0


def test_all_channels_of_a_user_draw_on_one_limit_of_bytes() -> None:
    exchange = Exchange()
    large = "x" * (QUEUED_BYTES_PER_USER // 4 - size_of(""))
    news, inbox = exchange.subscribe("ada", "news"), Mailbox(exchange.account("ada"))
    queue = exchange.queue("ada", "jobs")
    queue.put(large)
    queue.put(large)
    inbox.put(large)
    exchange.publish("ada", "news", large)
    for refused in (queue.put, inbox.put):
        with pytest.raises(Full) as full:
            refused("")
        assert full.value.limit == "queued_bytes_per_user"
    assert exchange.publish("ada", "news", "too much") == 1
    exchange.queue("bob", "jobs").put(large)
    taker = queue.join()
    taker.take()
    exchange.publish("ada", "news", "fits")
    assert [news.take(), news.take()] == [Message(large), Message("fits", 1)]


def test_what_is_dropped_is_given_back() -> None:
    exchange = Exchange()
    news, inbox = exchange.subscribe("ada", "news"), Mailbox(exchange.account("ada"))
    exchange.publish("ada", "news", "é")
    inbox.put("")
    assert exchange.account("ada").held == exchange.statistics()["queued_bytes"] == size_of("é") + size_of("")
    assert size_of("é") - size_of("") == 2
    news.close()
    inbox.close()
    assert exchange.account("ada").held == size_of(""), "the client's messages stay until the process ends"
    inbox.drop()
    assert exchange.account("ada").held == 0
