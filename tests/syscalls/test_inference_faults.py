"""Interface `inference`: requests that are wrong and devices that fail. What is refused leaves nothing."""

from __future__ import annotations

import math
from contextlib import suppress
from typing import Any

import pytest

from cadenza.kernel.device.null_device import CostModel
from cadenza.kernel.limits import LANES
from cadenza.kvfs.errors import Busy, DeviceLost, Internal, Invalid, LimitExceeded, TooLong

from .asking import decode, forward, probe, sample
from .desk import Desk, a_pass, a_run, a_sampler, in_loop

SLOW = CostModel(fixed_ms=3_600_000.0)

# --- what is wrong with a request ---

@pytest.mark.parametrize(("change", "error", "fault"), [
    ({"tokens": []}, Invalid, "1 to"),
    ({"tokens": [1024]}, Invalid, "vocabulary of 1024"),
    ({"tokens": [2**32 - 1]}, Invalid, "tokens"),
    ({"tokens": [1] * 65}, TooLong, "holds 64"),
    ({"tokens": [1, 2], "positions": [1]}, Invalid, "2 tokens, but 1 positions"),
    ({"positions": [64]}, TooLong, "position 64"),
    ({"positions": [2**32 - 1]}, Invalid, "positions"),
])
@pytest.mark.parametrize("call", ["forward", "decode"])
@in_loop
async def test_bad_inputs_are_refused_and_leave_nothing(
    call: str, change: dict[str, Any], error: type[Exception], fault: str
) -> None:
    async with Desk(context_tokens=64) as desk:
        process = desk.spawn()
        file = desk.ask(process, "kv.create")
        request = {**(a_pass if call == "forward" else a_run)(file, [1]), **change}
        with pytest.raises(error, match=fault):
            desk.ask(process, f"inference.{call}", request)
        assert not desk.ask(process, "kv.stat", file).busy
        assert len(process.handles) == 0


SAMPLERS = [
    ("temperature", math.nan), ("temperature", math.inf), ("temperature", -0.5), ("temperature", 1e5),
    ("top_p", 0.0), ("top_p", 1.5), ("top_p", -1.0), ("top_p", math.nan), ("min_p", -0.1), ("min_p", 1.1),
    ("min_p", math.nan),
]


@pytest.mark.parametrize(("field", "value"), SAMPLERS)
@in_loop
async def test_bad_samplers_are_refused(field: str, value: float) -> None:
    async with Desk() as desk:
        process = desk.spawn()
        file = desk.ask(process, "kv.create")
        with pytest.raises(Invalid, match=field):
            desk.ask(process, "inference.decode", a_run(file, [1], sampler=a_sampler(**{field: value})))
        with pytest.raises(Invalid, match=field):
            desk.ask(process, "inference.forward", a_pass(file, [1], samples=[sample(0, **{field: value})]))
        assert not desk.ask(process, "kv.stat", file).busy


@pytest.mark.parametrize("top_k", [2**31, 2**32 - 1])
@in_loop
async def test_an_enormous_top_k_harms_nobody(top_k: int) -> None:
    async with Desk() as desk:
        process, neighbour = desk.spawn(), desk.spawn("bob")
        mine, theirs = desk.ask(process, "kv.create"), desk.ask(neighbour, "kv.create")
        with suppress(Invalid):                 # refused or clamped, as it likes
            desk.ask(process, "inference.decode", a_run(mine, [1], sampler=a_sampler(temperature=1.0, top_k=top_k)))
        run = desk.ask(neighbour, "inference.decode", a_run(theirs, [1]))
        assert await desk.wait(neighbour, run, timeout_ns=5_000_000_000) == [run]


@pytest.mark.parametrize(("change", "fault"), [
    ({"max_tokens": 0}, "max_tokens"),
    ({"deliver_every": 0}, "deliver_every"),
    ({"stop_sequences": [[1], []]}, "stop sequence is empty"),
])
@in_loop
async def test_bad_ends_are_refused(change: dict[str, Any], fault: str) -> None:
    async with Desk() as desk:
        process = desk.spawn()
        file = desk.ask(process, "kv.create")
        with pytest.raises(Invalid, match=fault):
            desk.ask(process, "inference.decode", a_run(file, [1], **change))
        assert not desk.ask(process, "kv.stat", file).busy


@pytest.mark.parametrize(("change", "fault"), [
    ({"samples": [sample(2)]}, "row 2"),
    ({"samples": [sample(2**32 - 1)]}, "row 4294967295"),
    ({"probes": [probe(2, "entropy")]}, "row 2"),
    ({"probes": [probe(0, "top", 0)]}, "top probe gives 1 to"),
    ({"probes": [probe(0, "top", 1025)]}, "top probe gives 1 to 1024"),
    ({"probes": [probe(0, "log-probabilities", [])]}, "names 1 to"),
    ({"probes": [probe(0, "log-probabilities", [1024])]}, "vocabulary"),
    ({"probes": [probe(0, "log-probabilities", [2**32 - 1])]}, "probes"),
    ({"visible": [{"row": 2, "first": 0, "count": 9}]}, "row 2"),
    ({"visible": [{"row": 1, "first": 0, "count": 1}]}, "hide row 1 from itself"),
    ({"visible": [{"row": 2**32 - 1, "first": 0, "count": 9}]}, "visible"),
    ({"visible": [{"row": 1, "first": 2**32 - 1, "count": 2}]}, "visible"),
])
@in_loop
async def test_bad_questions_are_refused(change: dict[str, Any], fault: str) -> None:
    async with Desk() as desk:
        process = desk.spawn()
        file = desk.ask(process, "kv.create")
        with pytest.raises(Invalid, match=fault):
            desk.ask(process, "inference.forward", a_pass(file, [1, 2], **change))
        assert not desk.ask(process, "kv.stat", file).busy


@in_loop
async def test_visible_ranges_may_reach_past_the_end() -> None:
    async with Desk() as desk:
        process = desk.spawn()
        ranges = [{"row": 1, "first": 0, "count": 2**31 - 1}, {"row": 1, "first": 2**31 - 1, "count": 2**31 - 1}]
        await forward(desk, process, a_pass(desk.ask(process, "kv.create"), [1, 2], visible=ranges))


@pytest.mark.parametrize("call", ["forward", "decode"])
@in_loop
async def test_reading_what_is_being_appended_to_is_refused_and_leaves_nothing(call: str) -> None:
    async with Desk() as desk:
        process = desk.spawn()
        ask = a_pass if call == "forward" else a_run
        file, page = desk.ask(process, "kv.create"), desk.ask(process, "kv.create")
        await forward(desk, process, a_pass(page, [1] * 40))
        with pytest.raises(Busy):
            desk.ask(process, f"inference.{call}", ask(file, [1], reads=[page, file]))
        assert not desk.ask(process, "kv.stat", file).busy
        desk.ask(process, "kv.close", page)
        assert desk.files.pool.used == 0


# --- a device that fails ---

@in_loop
async def test_a_step_that_fails_fails_those_in_it() -> None:
    def script(draw: Any) -> int:
        return int(1 / (draw.token - 13))
    async with Desk(script=script) as desk:
        process = desk.spawn()
        file = desk.ask(process, "kv.create")
        run = desk.ask(process, "inference.decode", a_run(file, [13]))
        await desk.wait(process, run)
        with pytest.raises(Internal, match="ZeroDivisionError"):
            desk.ask(process, "inference.take-tokens", run)
        one = desk.ask(process, "inference.forward", a_pass(file, [13], samples=[sample(0)]))
        await desk.wait(process, one)
        with pytest.raises(Internal, match="ZeroDivisionError"):
            desk.ask(process, "inference.take-pass", one)
        assert desk.ask(process, "kv.stat", file).tokens == 0
        assert (await forward(desk, process, a_pass(file, [14], samples=[sample(0)]))).tokens == [1]


@in_loop
async def test_a_lost_device_fails_what_is_under_way_and_what_comes() -> None:
    async with Desk(cost=SLOW) as desk:
        process = desk.spawn()
        files = [desk.ask(process, "kv.create") for _ in range(2)]
        run = desk.ask(process, "inference.decode", a_run(files[0], [1]))
        one = desk.ask(process, "inference.forward", a_pass(files[1], [1]))
        await desk.settle()
        desk.link.fail("signal 9")
        assert await desk.wait(process, run, one) == [run, one]
        for call, handle in (("take-tokens", run), ("take-pass", one)):
            with pytest.raises(DeviceLost, match="signal 9"):
                desk.ask(process, f"inference.{call}", handle)
        with pytest.raises(DeviceLost):
            desk.ask(process, "inference.decode", a_run(files[0], [1]))
        assert not desk.ask(process, "kv.stat", files[0]).busy
        assert desk.engine.lanes.taken == 0


@in_loop
async def test_decodes_alive_are_limited_and_what_is_refused_leaves_nothing() -> None:
    async with Desk() as desk:
        process = desk.spawn()
        file, page = desk.ask(process, "kv.create"), desk.ask(process, "kv.create")
        await forward(desk, process, a_pass(page, [1] * 40))
        taken = [desk.engine.lanes.take() for _ in range(LANES)]
        with pytest.raises(LimitExceeded, match="decodes are alive") as refused:
            desk.ask(process, "inference.decode", a_run(file, [1], reads=[page]))
        assert refused.value.limit == "lanes"
        assert not desk.ask(process, "kv.stat", file).busy
        desk.engine.lanes.give_back(taken.pop())
        assert (await decode(desk, process, a_run(file, [1], reads=[page])))[1] == "length"
        while taken:
            desk.engine.lanes.give_back(taken.pop())
