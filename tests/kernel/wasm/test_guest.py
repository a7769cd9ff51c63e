"""System calls of a guest: answered at once, later, with an error; and the ways a guest ends."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NoReturn

import pytest

from cadenza.kernel.limits import SLICE_CALLS, ProcessLimits
from cadenza.kernel.wasm.fiber_unsafe import living
from cadenza.kernel.wasm.runtime import NativeCalls, WasmRuntime, native_calls
from cadenza.kernel.wasm.seams import Advance, ExitGuest, Handler, Outcome, blocking, quick
from cadenza.kvfs.errors import Busy, CadenzaError, Denied

from .guests import (
    ARGUMENTS,
    BLOCK,
    LOG,
    OK,
    PID,
    WAIT,
    Already,
    Running,
    Waiting,
    entry,
    failing,
    guest_program,
    run,
    runtime,
)

FINISHED = Outcome("finished")
ECHO = guest_program(entry(
    ARGUMENTS + LOG,
    "(call $arguments (i32.const 1024))"
    f"(call $log (i32.const 1) (i32.load (i32.const 1024)) (i32.load (i32.const 1028)) (i32.const 2048)) {OK}"),
    "process arguments", "process log")
# Logs "", and fails with the error's message; traps unless the errno is `denied` or `internal`.
REFUSED = guest_program(entry(
    LOG,
    "(call $log (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 2048))"
    "(if (i32.ne (i32.load8_u (i32.const 2048)) (i32.const 1)) (then unreachable))"
    "(if (i32.eqz (i32.or (i32.eq (i32.load8_u (i32.const 2052)) (i32.const 3))"
    " (i32.eq (i32.load8_u (i32.const 2052)) (i32.const 15)))) (then unreachable))" + failing("2056", "2060")),
    "process log")
ASKS_PID = guest_program(entry(PID, f"(drop (call $pid)) {OK}"), "process pid")
BLOCKS_TWICE = guest_program(entry(
    WAIT,
    f"(i32.store (i32.const 512) (i32.const 7)) {BLOCK}"
    f"(i32.store (i32.const 512) (i32.load (i32.load (i32.const 1028)))) {BLOCK} {OK}"), "events wait")
# Traps unless it is answered first 5, then -1.
COUNTS = guest_program(entry(
    '(import "inference" "next-token" (func $next (param i32) (result i32)))',
    "(if (i32.ne (call $next (i32.const -2)) (i32.const 5)) (then unreachable))"
    f"(if (i32.ne (call $next (i32.const 7)) (i32.const -1)) (then unreachable)) {OK}"), "inference next-token")
# Blocks, and fails with the error's message if there is one.
BLOCKS = guest_program(entry(
    WAIT, f"{BLOCK} (if (result i32) (i32.load8_u (i32.const 1024)) (then {failing('1032', '1036')}) (else {OK}))"),
    "events wait")


class Host:
    """Runs guests whose handlers are asked on the event loop's stack, or on the guest's own; or whose calls are
    recorded without Python, as far as their arguments are numbers."""

    def __init__(self, cache: Path, mark: Callable[[Handler], Handler], native: NativeCalls | None = None) -> None:
        self._cache, self._mark, self._native = cache, mark, native

    def drive(self, test: Callable[[Any], Coroutine[Any, Any, None]], **handlers: Handler) -> None:
        async def main() -> None:
            with self._runtime(handlers) as wasm:
                await test(wasm)
        asyncio.run(main())

    def outcome(self, wasm: bytes, process: Any = None, limits: ProcessLimits | None = None,
                **handlers: Handler) -> Outcome:
        async def main() -> Outcome:
            with self._runtime(handlers) as made:
                return await run(made, wasm, process, limits)
        return asyncio.run(main())

    def _runtime(self, handlers: dict[str, Handler]) -> WasmRuntime:
        marked = {name: self._mark(partial(each)) for name, each in handlers.items()}
        return runtime(self._cache, None, self._native, **marked)


@pytest.fixture(params=[lambda handler: handler, quick, blocking], ids=["plain", "quick", "native"])
def host(request: pytest.FixtureRequest, cache: Path) -> Host:
    if request.param is not blocking:
        return Host(cache, request.param)
    native = native_calls(cache.parent)
    return Host(cache, blocking, native) if native is not None else pytest.skip("there is no C compiler")


def raising(error: BaseException) -> Handler:
    def handler(*_: Any) -> NoReturn:
        raise error
    return handler


def test_a_call_is_answered_at_once(host: Host) -> None:
    said: list[Any] = []
    process = SimpleNamespace(arguments="{\"naïve\": \"\0\"}")
    ended = host.outcome(ECHO, process, arguments=lambda p: p.arguments,
                    log=lambda p, to, text: said.append((p, to, text)))
    assert ended == FINISHED
    assert said == [(process, "error", process.arguments)]


@pytest.mark.parametrize("error", [Denied("the reason"), Denied("")])
def test_an_error_reaches_the_guest(host: Host, error: CadenzaError) -> None:
    assert host.outcome(REFUSED, log=raising(error)) == Outcome("failed", 1, error.message)


def test_a_failing_handler_is_internal_and_logged(host: Host, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.ERROR):
        ended = host.outcome(REFUSED, log=raising(ZeroDivisionError("ours")))
    assert ended == Outcome("failed", 1, "the kernel failed in this call; its log says how")
    assert "the handler of log failed" in caplog.text
    assert "ZeroDivisionError: ours" in caplog.text


@pytest.mark.parametrize("handler", [lambda p: "text", raising(ZeroDivisionError("ours"))])
def test_where_no_error_can_be_answered_the_guest_ends(host: Host, handler: Handler) -> None:
    ended = host.outcome(ASKS_PID, pid=handler)
    assert ended == Outcome("trapped", 1, "pid: the kernel failed in this call; its log says how")
    assert host.outcome(ASKS_PID, pid=raising(Busy("not now"))) == Outcome("trapped", 1, "pid: not now")


def test_a_handler_may_end_its_guest(host: Host) -> None:
    assert host.outcome(ASKS_PID, pid=raising(ExitGuest(Outcome("exited", 5)))) == Outcome("exited", 5)


def test_a_handler_may_kill_its_own_guest(host: Host) -> None:
    async def test(wasm: Any) -> None:
        running = Running(wasm, await wasm.load(ASKS_PID), process := SimpleNamespace())
        process.guest = running.guest
        assert await running.task == Outcome("killed", 9)
    host.drive(test, pid=lambda p: p.guest.kill(Outcome("killed", 9)) or 5)


def test_numbers_are_answered_later(host: Host) -> None:
    """Of two guests at once, whose calls must not mix."""
    waits: dict[Any, list[tuple[int, Waiting]]] = {"ada": [], "bob": []}

    def next_token(process: str, run: int) -> Waiting:
        waits[process].append((run, Waiting()))
        return waits[process][-1][1]

    async def test(wasm: Any) -> None:
        program = await wasm.load(COUNTS)
        running = {name: Running(wasm, program, name) for name in waits}
        for answer in (5, -1):
            await asyncio.sleep(0)
            assert {calls[-1][0] for calls in waits.values()} == {2**32 - 2 if answer == 5 else 7}
            for name, guest in running.items():
                assert guest.guest.advance() is Advance.BLOCKED
                waits[name][-1][1].resolve(answer)
        assert [await each.task for each in running.values()] == [FINISHED, FINISHED]
        assert [len(calls) for calls in waits.values()] == [2, 2]
    host.drive(test, next_token=next_token)


def test_numbers_are_answered_at_once(host: Host) -> None:
    answers = [5, -1]
    assert host.outcome(COUNTS, next_token=lambda process, run: answers.pop(0)) == FINISHED
    assert host.outcome(COUNTS, next_token=lambda process, run: 6).ending == "trapped"


def test_a_call_is_answered_later(host: Host) -> None:
    waits: list[tuple[list[int], Waiting]] = []

    def wait(_: Any, handles: Any, until: str, timeout: int | None, intents: list[Any]) -> Waiting:
        assert (until, timeout, intents) == ("any", None, [])
        waits.append((handles.tolist(), Waiting()))
        return waits[-1][1]

    async def test(wasm: Any) -> None:
        running = Running(wasm, await wasm.load(BLOCKS_TWICE))
        await asyncio.sleep(0)
        assert running.guest.advance() is Advance.BLOCKED     # spurious: nothing happens
        assert [handles for handles, _ in waits] == [[7]]
        waits[0][1].resolve([11, 12])
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert [handles for handles, _ in waits] == [[7], [11]]
        waits[1][1].resolve([])
        assert await running.task == FINISHED
        assert running.guest.advance() is Advance.ENDED
        assert [waiting.abandoned for _, waiting in waits] == [0, 0]
    host.drive(test, wait=wait)


def test_a_late_error_reaches_the_guest(host: Host) -> None:
    waiting = Waiting()

    async def test(wasm: Any) -> None:
        running = Running(wasm, await wasm.load(BLOCKS))
        await asyncio.sleep(0)
        waiting.resolve(error=Denied("too late"))
        assert await running.task == Outcome("failed", 1, "too late")
    host.drive(test, wait=lambda *_: waiting)


def test_a_suspension_may_have_its_answer_already(host: Host) -> None:
    async def test(wasm: Any) -> None:
        woken: list[None] = []
        with wasm.instantiate(await wasm.load(BLOCKS), None, ProcessLimits(), lambda: woken.append(None)) as guest:
            assert guest.advance() is Advance.ENDED
            assert guest.outcome == FINISHED
            assert woken == []                                 # it never was blocked
    already = Already()
    already.value = []
    host.drive(test, wait=lambda *_: already)


def test_a_blocked_guest_is_killed(host: Host) -> None:
    waiting = Waiting()

    async def test(wasm: Any) -> None:
        guest = Running(wasm, await wasm.load(BLOCKS)).guest
        await asyncio.sleep(0)
        assert living() == 1
        guest.kill(Outcome("killed", 9))
        assert (guest.outcome, living(), waiting.abandoned) == (Outcome("killed", 9), 0, 1)
        waiting.resolve([])                                    # nobody asks any more
        guest.kill(Outcome("trapped"))
        guest.close()
        assert guest.advance() is Advance.ENDED
        assert (guest.outcome, waiting.abandoned) == (Outcome("killed", 9), 1)
    host.drive(test, wait=lambda *_: waiting)


def test_a_guest_that_never_ran_is_closed(host: Host) -> None:
    async def test(wasm: Any) -> None:
        with wasm.instantiate(await wasm.load(ECHO), None, ProcessLimits(), print):
            assert living() == 1
        assert (living(), wasm.statistics().guests) == (0, 0)
    host.drive(test)


def test_a_thousand_guests_block_and_go_on(host: Host) -> None:
    waiting: list[Waiting] = []

    def wait(_: Any, *rest: Any) -> Waiting:
        waiting.append(Waiting())
        return waiting[-1]

    async def test(wasm: Any) -> None:
        program = await wasm.load(BLOCKS_TWICE)
        running = [Running(wasm, program) for _ in range(1000)]
        await asyncio.sleep(0)
        assert (len(waiting), living(), wasm.statistics().guests) == (1000, 1000, 1000)
        while waiting:
            now = waiting.copy()
            waiting.clear()
            for one in reversed(now):
                one.resolve([1])
            await asyncio.sleep(0)
            await asyncio.sleep(0)
        assert {await one.task for one in running} == {FINISHED}
        assert (living(), wasm.statistics().guests) == (0, 0)
    host.drive(test, wait=wait)


def test_a_slice_holds_so_many_calls(host: Host) -> None:
    calls = 0

    def pid(_: Any) -> int:
        nonlocal calls
        calls += 1
        return calls

    loop = f"(loop $again (br_if $again (i32.lt_u (call $pid) (i32.const {2 * SLICE_CALLS + 1}))))"
    wasm = guest_program(entry(PID, f"{loop} {OK}"), "process pid")

    async def test(made: Any) -> None:
        with made.instantiate(await made.load(wasm), None, ProcessLimits(), print) as guest:
            assert [guest.advance(), calls] == [Advance.READY, SLICE_CALLS]
            assert [guest.advance(), calls] == [Advance.READY, 2 * SLICE_CALLS]
            assert [guest.advance(), calls] == [Advance.ENDED, 2 * SLICE_CALLS + 1]
    host.drive(test, pid=pid)


@pytest.mark.parametrize(("body", "reason"), [
    ("unreachable", "unreachable"),
    ("(i32.div_u (i32.const 1) (i32.load (i32.const 16)))", "integer divide by zero"),
    ("(i32.load (i32.const 0x7fffffff))", "out of bounds memory access"),
    ("(i32.const 0x7ffffff0)", "out of bounds"),               # where the result should lie
    ("(call $deeper (i32.const 0))", "call stack exhausted"),
])
def test_a_trap_ends_the_guest_with_its_reason(host: Host, body: str, reason: str) -> None:
    deeper = "(func $deeper (param i32) (result i32) (i32.add (call $deeper (local.get 0)) (i32.const 1)))"
    ended = host.outcome(guest_program(f"{deeper} {entry('', body)}"))
    assert ended.ending == "trapped"
    assert reason in ended.message
    assert "\n" not in ended.message


def test_quick_calls_share_the_slice_with_others(cache: Path) -> None:
    """A guest that makes only quick calls makes room for others as soon as any; each ends up where it is counted."""
    asked: list[str] = []
    loop = f"(loop $again (drop (call $pid)) {BLOCK} (br $again))"
    wasm = guest_program(entry(PID + WAIT, f"{loop} {OK}"), "process pid", "events wait")

    def pid(_: Any) -> int:
        asked.append("quick")
        return 1

    def wait(*_: Any) -> list[int]:
        asked.append("plain")
        return []

    async def test() -> None:
        with runtime(cache, None, pid=quick(pid), wait=wait) as made, \
                made.instantiate(await made.load(wasm), None, ProcessLimits(), print) as guest:
            for slices in (1, 2, 3):
                assert guest.advance() is Advance.READY
                assert asked == ["quick", "plain"] * (slices * SLICE_CALLS // 2)
    asyncio.run(test())


def test_a_trap_names_the_functions_it_happened_in(host: Host) -> None:
    ended = host.outcome(guest_program(f"(func $inner unreachable) {entry('', f'(call $inner) {OK}')}"))
    assert "in main!inner" in ended.message


def test_a_text_that_is_not_utf8_traps(host: Host) -> None:
    wasm = guest_program(entry(
        LOG, "(i32.store8 (i32.const 600) (i32.const 255))"
        f"(call $log (i32.const 0) (i32.const 600) (i32.const 1) (i32.const 2048)) {OK}"), "process log")
    ended = host.outcome(wasm, log=lambda *_: None)
    assert ended.ending == "trapped"
    assert "utf-8" in ended.message.lower()


def test_an_unknown_enum_case_traps(host: Host) -> None:
    wasm = guest_program(entry(
        LOG, f"(call $log (i32.const 9) (i32.const 0) (i32.const 0) (i32.const 2048)) {OK}"), "process log")
    assert host.outcome(wasm, log=lambda *_: None).ending == "trapped"


def test_lifecycles_leave_nothing_behind(host: Host) -> None:
    """Half of them are killed while they wait."""
    waiting: list[Waiting] = []

    def wait(_: Any, *rest: Any) -> Waiting:
        waiting.append(Waiting())
        return waiting[-1]

    async def test(wasm: Any) -> None:
        program = await wasm.load(BLOCKS)
        for turn in range(500):
            with wasm.instantiate(program, None, ProcessLimits(), lambda: None) as guest:
                assert guest.advance() is Advance.BLOCKED
                if turn % 2:
                    waiting[-1].resolve([1] * 100)
                    assert guest.advance() is Advance.ENDED
            assert living() == 0
        assert sum(one.abandoned for one in waiting) == 250
    host.drive(test, wait=wait)
