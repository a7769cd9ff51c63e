"""Interface `process`."""

from __future__ import annotations

import asyncio
import gc
import weakref

import pytest

from cadenza.kernel.handles import Outcome
from cadenza.kernel.limits import (
    ARGUMENTS_BYTES,
    PRIORITY_LEAST,
    PRIORITY_MOST,
    QUEUE_MESSAGES,
    TEXT_BYTES,
    ProcessLimits,
)
from cadenza.kernel.process import EXIT_CODES, ExitStatus, Process
from cadenza.kernel.wasm.seams import ExitGuest
from cadenza.kvfs.errors import Closed, Full, Invalid, LimitExceeded, NotFound, NotReady

from .desk import FUNCTIONS, Desk, in_loop


def child_of(desk: Desk, parent: Process, *, detached: bool = False) -> Process:
    pid = desk.ask(parent, "process.spawn", "program-of-ada", "{}", detached)
    return desk.kernel.process("ada", pid)


@in_loop
async def test_children_have_the_priority_of_their_parent_and_nobody_a_higher_one() -> None:
    async with Desk() as desk:
        parent = desk.spawn(priority=-3)
        assert child_of(desk, parent).priority == -3
        assert desk.spawn(priority=-4, parent=parent).priority == -4
        with pytest.raises(LimitExceeded, match="-3 at most"):
            desk.spawn(priority=-2, parent=parent)
        for wrong in (PRIORITY_LEAST - 1, PRIORITY_MOST + 1):
            with pytest.raises(Invalid, match=str(wrong)):
                desk.spawn(priority=wrong)
        assert len(parent.children) == 2


@in_loop
async def test_a_program_sees_what_it_was_given() -> None:
    async with Desk() as desk:
        process = desk.kernel.spawn("ada", "program-of-ada", '{"question": "why"}')
        assert desk.ask(process, "process.pid") == process.pid
        assert desk.ask(process, "process.arguments") == '{"question": "why"}'
        assert desk.ask(process, "process.payload") == [("main.py", "pass")]
        assert len({desk.ask(process, "process.entropy") for _ in range(8)}) == 8


@in_loop
async def test_both_streams_of_the_log_reach_the_output_in_order() -> None:
    async with Desk() as desk:
        process = desk.spawn()
        desk.ask(process, "process.log", "output", "one")
        desk.ask(process, "process.log", "error", "two")
        assert [(e.kind, e.text) for e in process.output.read(0)[0]] == [("output", "one"), ("error", "two")]


@in_loop
async def test_the_text_of_one_log_is_limited_in_bytes() -> None:
    async with Desk() as desk:
        process = desk.spawn()
        desk.ask(process, "process.log", "output", "x" * TEXT_BYTES)
        with pytest.raises(Invalid, match=str(TEXT_BYTES)):
            desk.ask(process, "process.log", "output", "x" * (TEXT_BYTES + 1))
        with pytest.raises(Invalid, match=str(TEXT_BYTES)):
            desk.ask(process, "process.log", "output", "é" * (TEXT_BYTES // 2 + 1))


@pytest.mark.parametrize("call", ["log", "send"])
@in_loop
async def test_output_may_be_exactly_its_limit_and_one_byte_more_ends_the_process(call: str) -> None:
    async with Desk(limits=ProcessLimits(output_bytes=10)) as desk:
        process, neighbour = desk.spawn(), desk.spawn()

        def say(text: str) -> None:
            if call == "log":
                desk.ask(process, "process.log", "output", text)
            else:
                desk.ask(process, "channel.send", text)
        await desk.turn(process, lambda: say("01234"), lambda: say("ééx"))
        assert process.exit is None
        await desk.turn(process, lambda: say("!"))
        assert process.exit is not None
        assert (process.exit.ending, process.exit.code) == ("output-limit", 153)
        assert "10" in process.exit.message
        assert "".join(e.text for e in process.output.read(0)[0]) == "01234ééx"
        assert neighbour.exit is None


@in_loop
async def test_exit_ends_with_the_code_that_was_given() -> None:
    async with Desk() as desk:
        for code in (0, 7, 255):
            process = desk.spawn()
            await desk.turn(process, lambda p=process, c=code: desk.ask(p, "process.exit", c))  # type: ignore[misc]
            assert process.exit is not None
            assert (process.exit.ending, process.exit.code) == ("exited", code)
            assert bool(process.exit.message) == (code != 0)


@in_loop
async def test_every_ending_has_its_code() -> None:
    cases = dict(FUNCTIONS["process"]["take-exit"].result.ok.fields)["ending"].names  # type: ignore[union-attr]
    assert set(EXIT_CODES) == set(cases) - {"exited"}
    assert [ending for ending, code in EXIT_CODES.items() if code == 0] == ["finished"]


@in_loop
async def test_the_wall_limit_ends_a_process_that_waits() -> None:
    async with Desk(limits=ProcessLimits(wall_seconds=0.02)) as desk:
        status = await asyncio.wait_for(desk.spawn().ended(), 20)
        assert (status.ending, status.code) == ("wall-limit", 142)
        assert "0.02" in status.message


# --- children ---

@in_loop
async def test_a_child_has_the_limits_and_the_owner_of_its_parent() -> None:
    async with Desk() as desk:
        parent = desk.spawn(limits=ProcessLimits(handles=5), priority=3)
        child = child_of(desk, parent)
        assert (child.owner, child.limits, child.priority) == ("ada", parent.limits, 3)
        assert not child.detached


@in_loop
async def test_an_unknown_image_cannot_be_spawned() -> None:
    async with Desk() as desk:
        process = desk.spawn()
        with pytest.raises(NotFound, match="no image 'absent'"):
            desk.ask(process, "process.spawn", "absent", "{}", False)
        assert not process.children


@in_loop
async def test_arguments_are_limited_in_bytes() -> None:
    async with Desk() as desk:
        process = desk.spawn()
        most = '{"a": "' + "x" * (ARGUMENTS_BYTES - 9) + '"}'
        desk.ask(process, "process.spawn", "program-of-ada", most, False)
        with pytest.raises(Invalid, match=str(ARGUMENTS_BYTES)):
            desk.ask(process, "process.spawn", "program-of-ada", most.replace("a", "é"), False)
        assert len(process.children) == 1


@pytest.mark.parametrize("arguments", ["not json", "[]", "3"])
@in_loop
async def test_arguments_are_a_json_object(arguments: str) -> None:
    async with Desk() as desk:
        process = desk.spawn()
        with pytest.raises(Invalid):
            desk.ask(process, "process.spawn", "program-of-ada", arguments, False)


@in_loop
async def test_living_children_are_limited() -> None:
    async with Desk(limits=ProcessLimits(children=2)) as desk:
        parent = desk.spawn()
        first, _ = child_of(desk, parent), child_of(desk, parent, detached=True)
        with pytest.raises(LimitExceeded, match="2 children") as refused:
            child_of(desk, parent)
        assert refused.value.limit == "children"
        first.kill()
        child_of(desk, parent)


@in_loop
async def test_a_stopping_daemon_spawns_nothing() -> None:
    async with Desk() as desk:
        process = desk.spawn()
        process.signals.opened = True                     # it does not end at once, so it sees the daemon stop
        closing = asyncio.create_task(desk.kernel.close())
        await desk.settle()
        with pytest.raises(Closed, match="stopping"):
            child_of(desk, process)
        process.kill()
        await closing


@in_loop
async def test_a_parent_waits_for_its_child() -> None:
    async with Desk() as desk:
        parent = desk.spawn()
        child = child_of(desk, parent)
        handle = desk.ask(parent, "process.wait-child", child.pid)
        with pytest.raises(NotReady):
            desk.ask(parent, "process.take-exit", handle)
        await desk.turn(child, lambda: desk.ask(child, "process.exit", 3))
        assert await desk.wait(parent, handle) == [handle]
        assert desk.ask(parent, "process.take-exit", handle) == ExitStatus("exited", 3, "exit code 3")
        late = desk.ask(parent, "process.wait-child", child.pid)
        assert desk.ask(parent, "process.take-exit", late).code == 3


@in_loop
async def test_only_what_exists_can_be_waited_for_and_taken() -> None:
    async with Desk() as desk:
        process = desk.spawn()
        with pytest.raises(NotFound, match="no process 99"):
            desk.ask(process, "process.wait-child", 99)
        timer = desk.ask(process, "events.timer", 0)
        for call in ("process.take-exit", "process.take-signal"):
            for handle in (timer, 99):
                with pytest.raises(NotFound, match=f"handle {handle} "):
                    desk.ask(process, call, handle)


@in_loop
async def test_closed_waits_for_a_child_are_forgotten() -> None:
    async with Desk() as desk:
        parent = desk.spawn()
        child = child_of(desk, parent)
        for _ in range(200):
            desk.ask(parent, "events.close", desk.ask(parent, "process.wait-child", child.pid))
        gc.collect()
        assert sum(issubclass(type(thing), Outcome) for thing in gc.get_objects()) < 200


@in_loop
async def test_a_parents_death_ends_attached_children_and_their_children_only() -> None:
    async with Desk() as desk:
        parent = desk.spawn()
        attached, detached = child_of(desk, parent), child_of(desk, parent, detached=True)
        grandchild, late = child_of(desk, attached), child_of(desk, attached, detached=True)
        parent.kill()
        for ended in (attached, grandchild):
            assert ended.exit is not None
            assert ended.exit.ending == "killed"
            assert "parent" in ended.exit.message
        assert detached.exit is None
        assert late.exit is None


@in_loop
async def test_a_program_that_kills_its_parent_dies_with_it_and_the_others_run_on() -> None:
    async with Desk() as desk:
        parent, neighbour = desk.spawn(), desk.spawn("bob")
        child = child_of(desk, parent)
        await desk.settle()
        await desk.turn(child, lambda: desk.ask(child, "process.kill", parent.pid, "kill"))
        assert parent.exit is not None
        assert child.exit is not None
        await desk.turn(neighbour, lambda: desk.ask(neighbour, "process.log", "output", "alive"))
        assert neighbour.output.total_bytes == 5


@in_loop
async def test_a_dead_parent_is_not_kept_by_its_detached_child() -> None:
    async with Desk() as desk:
        parent = desk.spawn()
        child = child_of(desk, parent, detached=True)
        await desk.settle()
        parent.kill()
        desk.kernel.forget("ada", parent.pid)
        kept = weakref.ref(parent)
        desk.runtime.guests.clear()
        del parent
        gc.collect()
        assert kept() is None
        assert child.exit is None


# --- signals ---

@pytest.mark.parametrize("signal", ["terminate", "interrupt", "kill"])
@in_loop
async def test_before_signals_are_opened_they_end_a_process(signal: str) -> None:
    async with Desk() as desk:
        killer, victim = desk.spawn(), desk.spawn()
        desk.ask(killer, "process.kill", victim.pid, signal)
        assert victim.exit is not None
        assert (victim.exit.ending, victim.exit.code) == ("killed", 137)
        assert repr(signal) in victim.exit.message
        with pytest.raises(Closed, match="has ended"):
            desk.ask(killer, "process.kill", victim.pid, signal)


@in_loop
async def test_opened_signals_are_delivered_in_order_but_kill_is_not() -> None:
    async with Desk() as desk:
        process, other = desk.spawn(), desk.spawn()
        desk.ask(other, "process.kill", process.pid, "user")
        handle = desk.ask(process, "process.signals")
        assert await desk.wait(process, handle) == [handle]
        for signal in ("terminate", "interrupt"):
            desk.ask(other, "process.kill", process.pid, signal)
        taken = [desk.ask(process, "process.take-signal", handle) for _ in range(4)]
        assert taken == ["user", "terminate", "interrupt", None]
        assert await desk.wait(process, handle, timeout_ns=0) == []
        desk.ask(other, "process.kill", process.pid, "kill")
        assert process.exit is not None


@in_loop
async def test_pending_signals_are_bounded() -> None:
    async with Desk() as desk:
        process = desk.spawn()
        for _ in range(QUEUE_MESSAGES):
            desk.ask(process, "process.kill", process.pid, "user")
        with pytest.raises(Full, match=str(QUEUE_MESSAGES)):
            desk.ask(process, "process.kill", process.pid, "user")


@in_loop
async def test_a_process_whose_signals_are_full_does_not_keep_the_daemon_from_stopping() -> None:
    async with Desk() as desk:
        process, other = desk.spawn(), desk.spawn()
        desk.ask(process, "process.signals")
        for _ in range(QUEUE_MESSAGES):
            desk.ask(process, "process.kill", process.pid, "user")
        closing = asyncio.create_task(desk.kernel.close())
        await desk.settle()
        process.kill()
        await closing
        assert other.exit is not None


@pytest.mark.parametrize("signal", ["terminate", "interrupt", "kill"])
@in_loop
async def test_a_program_may_end_itself_by_a_signal(signal: str) -> None:
    async with Desk() as desk:
        process, neighbour = desk.spawn(), desk.spawn()
        with pytest.raises(ExitGuest):
            desk.ask(process, "process.kill", process.pid, signal)
        await desk.turn(process, lambda: desk.ask(process, "process.kill", process.pid, signal))
        assert process.exit is not None
        assert (process.exit.ending, process.exit.code) == ("killed", 137)
        assert neighbour.exit is None


@in_loop
async def test_a_program_may_send_itself_signals_that_it_opened() -> None:
    async with Desk() as desk:
        process = desk.spawn()
        handle = desk.ask(process, "process.signals")
        desk.ask(process, "process.kill", process.pid, "terminate")
        assert desk.ask(process, "process.take-signal", handle) == "terminate"
        with pytest.raises(ExitGuest):
            desk.ask(process, "process.kill", process.pid, "kill")


@in_loop
async def test_nobody_is_signalled_who_is_not_there() -> None:
    async with Desk() as desk:
        with pytest.raises(NotFound, match="no process 99"):
            desk.ask(desk.spawn(), "process.kill", 99, "kill")
