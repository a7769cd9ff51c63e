"""Interface `channel`: what is delivered, what is refused, and that nothing is lost silently."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from cadenza.kernel.limits import MESSAGE_BYTES, QUEUE_MESSAGES, QUEUES_PER_USER, TOPIC_BYTES, ProcessLimits
from cadenza.kernel.process import Process
from cadenza.kvfs.errors import Full, Invalid, LimitExceeded, NotFound

from .desk import NO_CHANNELS, Desk, in_loop


def drain(desk: Desk, process: Process, source: int) -> list[tuple[str, int]]:
    """(text, lost) of everything that is there."""
    taken = []
    while (message := desk.ask(process, "channel.take-message", source)) is not None:
        taken.append((message.text, message.lost))
    return taken


# --- the client ---

@in_loop
async def test_messages_to_the_client_are_kept_in_order_with_the_log() -> None:
    async with Desk() as desk:
        process = desk.spawn()
        desk.ask(process, "channel.send", "one")
        desk.ask(process, "process.log", "output", "said")
        desk.ask(process, "channel.send", "two")
        events = process.output.read(0)[0]
        assert [(e.kind, e.text) for e in events] == [("message", "one"), ("output", "said"), ("message", "two")]


@in_loop
async def test_messages_of_the_client_wait_for_the_program() -> None:
    async with Desk() as desk:
        process = desk.spawn()
        process.deliver("before it listened")
        inbox = desk.ask(process, "channel.receive")
        assert await desk.wait(process, inbox) == [inbox]
        process.deliver("after")
        assert drain(desk, process, inbox) == [("before it listened", 0), ("after", 0)]
        assert await desk.wait(process, inbox, timeout_ns=0) == []


@in_loop
async def test_closing_the_inbox_loses_nothing() -> None:
    async with Desk() as desk:
        process = desk.spawn()
        inbox = desk.ask(process, "channel.receive")
        process.deliver("one")
        desk.ask(process, "events.close", inbox)
        process.deliver("two")
        assert drain(desk, process, desk.ask(process, "channel.receive")) == [("one", 0), ("two", 0)]


@in_loop
async def test_a_full_inbox_refuses() -> None:
    async with Desk() as desk:
        process = desk.spawn()
        for n in range(QUEUE_MESSAGES):
            process.deliver(str(n))
        with pytest.raises(Full, match=str(QUEUE_MESSAGES)) as refused:
            process.deliver("one too many")
        assert refused.value.limit == "queue_messages"
        inbox = desk.ask(process, "channel.receive")
        assert drain(desk, process, inbox) == [(str(n), 0) for n in range(QUEUE_MESSAGES)]


# --- topics ---

@in_loop
async def test_every_subscriber_gets_what_is_published_while_it_is_subscribed() -> None:
    async with Desk() as desk:
        one, two, publisher = desk.spawn(), desk.spawn(), desk.spawn()
        assert desk.ask(publisher, "channel.publish", "news", "too early") == 0
        first, second = desk.ask(one, "channel.subscribe", "news"), desk.ask(two, "channel.subscribe", "news")
        assert desk.ask(publisher, "channel.publish", "news", "both") == 2
        assert desk.ask(publisher, "channel.publish", "weather", "nobody") == 0
        desk.ask(two, "events.close", second)
        assert desk.ask(publisher, "channel.publish", "news", "one") == 1
        assert await desk.wait(one, first) == [first]
        assert drain(desk, one, first) == [("both", 0), ("one", 0)]
        with pytest.raises(NotFound):
            drain(desk, two, second)


@in_loop
async def test_a_slow_subscriber_is_told_how_many_it_lost() -> None:
    async with Desk() as desk:
        slow, quick = desk.spawn(), desk.spawn()
        slow_one, quick_one = desk.ask(slow, "channel.subscribe", "news"), desk.ask(quick, "channel.subscribe", "news")
        for n in range(QUEUE_MESSAGES + 3):
            assert desk.ask(quick, "channel.publish", "news", str(n)) == 2
            assert drain(desk, quick, quick_one) == [(str(n), 0)]
        assert desk.ask(slow, "channel.take-message", slow_one).text == "0"
        desk.ask(quick, "channel.publish", "news", "after")
        got = drain(desk, slow, slow_one)
        assert got[:-1] == [(str(n), 0) for n in range(1, QUEUE_MESSAGES)]
        assert got[-1] == ("after", 3)
        desk.ask(quick, "channel.publish", "news", "later")
        assert drain(desk, slow, slow_one) == [("later", 0)]


@in_loop
async def test_a_dead_subscriber_is_no_subscriber() -> None:
    async with Desk() as desk:
        one, two = desk.spawn(), desk.spawn()
        desk.ask(one, "channel.subscribe", "news")
        one.kill()
        assert desk.ask(two, "channel.publish", "news", "anybody?") == 0
        assert desk.kernel.exchange.statistics() == NO_CHANNELS


# --- queues ---

@in_loop
async def test_each_message_of_a_queue_goes_to_one_taker() -> None:
    async with Desk() as desk:
        one, two, maker = desk.spawn(), desk.spawn(), desk.spawn()
        first, second = desk.ask(one, "channel.pull", "jobs"), desk.ask(two, "channel.pull", "jobs")
        for n in range(4):
            desk.ask(maker, "channel.push", "jobs", str(n))
        assert await desk.wait(one, first) == [first]
        assert await desk.wait(two, second) == [second]
        taken = [desk.ask(p, "channel.take-message", h).text for p, h in ((one, first), (two, second), (two, second))]
        assert taken == ["0", "1", "2"]
        assert drain(desk, one, first) == [("3", 0)]
        assert desk.ask(two, "channel.take-message", second) is None
        assert await desk.wait(two, second, timeout_ns=0) == []


@in_loop
async def test_a_queue_waits_for_a_taker_to_come() -> None:
    async with Desk() as desk:
        maker = desk.spawn()
        desk.ask(maker, "channel.push", "jobs", "one")
        maker.kill()
        taker = desk.spawn()
        pull = desk.ask(taker, "channel.pull", "jobs")
        assert await desk.wait(taker, pull) == [pull]
        desk.ask(taker, "events.close", pull)
        assert drain(desk, taker, desk.ask(taker, "channel.pull", "jobs")) == [("one", 0)]


@in_loop
async def test_a_full_queue_refuses_and_loses_nothing() -> None:
    async with Desk() as desk:
        maker, taker = desk.spawn(), desk.spawn()
        for n in range(QUEUE_MESSAGES):
            desk.ask(maker, "channel.push", "jobs", str(n))
        with pytest.raises(Full, match="'jobs'") as refused:
            desk.ask(maker, "channel.push", "jobs", "one too many")
        assert refused.value.errno == "full"
        pull = desk.ask(taker, "channel.pull", "jobs")
        assert desk.ask(taker, "channel.take-message", pull).text == "0"
        desk.ask(maker, "channel.push", "jobs", "last")
        assert [text for text, _ in drain(desk, taker, pull)] == [*map(str, range(1, QUEUE_MESSAGES)), "last"]


@in_loop
async def test_a_user_has_so_many_queues_and_no_more() -> None:
    async with Desk() as desk:
        process, other = desk.spawn(), desk.spawn("bob")
        for n in range(QUEUES_PER_USER):
            desk.ask(process, "channel.push", f"jobs {n}", "")
        calls: list[Callable[[], object]] = [lambda: desk.ask(process, "channel.push", "another", ""),
                                             lambda: desk.ask(process, "channel.pull", "another")]
        for call in calls:
            with pytest.raises(LimitExceeded, match=str(QUEUES_PER_USER)) as refused:
                call()
            assert refused.value.limit == "queues_per_user"
        desk.ask(other, "channel.push", "another", "")
        pull = desk.ask(process, "channel.pull", "jobs 5")
        assert drain(desk, process, pull) == [("", 0)]
        desk.ask(process, "events.close", pull)
        desk.ask(process, "channel.push", "another", "")


# --- sizes and kinds ---

Sender = Callable[[Desk, Process, str], object]
SENDERS: dict[str, Sender] = {
    "send": lambda desk, p, text: desk.ask(p, "channel.send", text),
    "publish": lambda desk, p, text: desk.ask(p, "channel.publish", "news", text),
    "push": lambda desk, p, text: desk.ask(p, "channel.push", "jobs", text),
}


@pytest.mark.parametrize("sender", SENDERS)
@in_loop
async def test_messages_are_limited_in_bytes(sender: str) -> None:
    async with Desk() as desk:
        process = desk.spawn()
        desk.ask(process, "channel.subscribe", "news")
        for text in ("x" * MESSAGE_BYTES, "é" * (MESSAGE_BYTES // 2)):
            SENDERS[sender](desk, process, text)
            with pytest.raises(Invalid, match=str(MESSAGE_BYTES)):
                SENDERS[sender](desk, process, text + "y")


@pytest.mark.parametrize("call", ["publish", "subscribe", "push", "pull"])
@in_loop
async def test_names_are_limited_in_bytes(call: str) -> None:
    async with Desk() as desk:
        process = desk.spawn()
        text = ["text"] if call in ("publish", "push") else []
        for name in ("n", "n" * TOPIC_BYTES, "é" * (TOPIC_BYTES // 2)):
            desk.ask(process, f"channel.{call}", name, *text)
        for name in ("", "n" * (TOPIC_BYTES + 1), "é" * (TOPIC_BYTES // 2 + 1)):
            with pytest.raises(Invalid, match=str(TOPIC_BYTES)):
                desk.ask(process, f"channel.{call}", name, *text)


@in_loop
async def test_messages_are_taken_from_sources_only() -> None:
    async with Desk() as desk:
        process = desk.spawn()
        for handle in (desk.ask(process, "events.timer", 0), 77):
            with pytest.raises(NotFound, match=f"handle {handle} "):
                desk.ask(process, "channel.take-message", handle)


@in_loop
async def test_a_message_counts_as_output_with_its_bytes() -> None:
    async with Desk(limits=ProcessLimits(output_bytes=100)) as desk:
        process = desk.spawn()
        desk.ask(process, "channel.send", "é" * 50)
        assert process.usage()["output_bytes"] == 100
