"""What the tests of guests share: handlers that are fakes, suspensions that tests resolve, and a loop that drives."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cadenza.kernel.limits import ProcessLimits
from cadenza.kernel.wasm import wit
from cadenza.kernel.wasm.guest import Guest
from cadenza.kernel.wasm.runtime import CompileLimits, NativeCalls, Program, WasmRuntime
from cadenza.kernel.wasm.seams import Advance, Handler, Outcome, Suspension
from cadenza.kvfs.errors import NotFound

from .component_text import WIT, program

ABI = wit.Abi.parse(WIT.read_text())
HEARTBEATS = 20                              # that a responsive loop surely makes while a child compiles

LOG = '(import "process" "log" (func $log (param i32 i32 i32 i32)))'
PID = '(import "process" "pid" (func $pid (result i32)))'
ARGUMENTS = '(import "process" "arguments" (func $arguments (param i32)))'
WAIT = '(import "events" "wait" (func $wait (param i32 i32 i32 i32 i64 i32 i32 i32)))'
BLOCK = ("(call $wait (i32.const 512) (i32.const 1) (i32.const 0) (i32.const 0) (i64.const 0)"
         " (i32.const 0) (i32.const 0) (i32.const 1024))")
OK = "(i32.const 16)"                        # nothing is ever written there: zero is ok


def entry(imports: str, body: str, locals_: str = "") -> str:
    """A core module with `run`; `body` leaves where the result lies."""
    return f'{imports} (func (export "run") (result i32) {locals_} {body})'


def failing(message_at: str, size_at: str) -> str:
    """Answers err, with the text whose pointer and size are at these addresses."""
    return (f"(i32.store8 (i32.const 16) (i32.const 1)) (i32.store (i32.const 20) (i32.load (i32.const {message_at})))"
            f"(i32.store (i32.const 24) (i32.load (i32.const {size_at}))) {OK}")


def guest_program(main: str, *functions: str) -> bytes:
    """`functions`: those that `main` imports, as "interface name"."""
    imports: dict[str, dict[str, wit.Function]] = {}
    for function in functions:
        plain, name = function.split()
        interface = f"cadenza:kernel/{plain}@0.1.0"
        imports.setdefault(interface, {})[name] = ABI.functions[interface][name]
    return program(imports, main)


class Waiting(Suspension):
    """A Suspension that the test resolves."""

    def __init__(self) -> None:
        self.wake: Callable[[], None] | None = None
        self.value: Any = None
        self.error: Exception | None = None
        self.abandoned = 0

    def subscribe(self, wake: Callable[[], None]) -> None:
        self.wake = wake

    def answer(self) -> Any:
        if self.error is not None:
            raise self.error
        return self.value

    def abandon(self) -> None:
        self.abandoned += 1

    def resolve(self, value: Any = None, error: Exception | None = None) -> None:
        assert self.wake is not None
        self.value, self.error = value, error
        self.wake()


class Already(Waiting):
    """A Suspension that wakes before `subscribe` returns."""

    def subscribe(self, wake: Callable[[], None]) -> None:
        wake()


def runtime(cache: Path, compile_limits: CompileLimits | None = None, native: NativeCalls | None = None, /,
            **given: Handler) -> WasmRuntime:  # fmt: skip
    """`given`: handlers by their names with underscores; every other one answers NotFound."""
    def missing(*_: Any) -> Any:
        raise NotFound("this test has no such handler")
    handlers = {wit.plain_name(interface): {name: given.get(name.replace("-", "_"), missing) for name in functions}
                for interface, functions in ABI.functions.items()}
    return WasmRuntime(handlers, cache, WIT.read_text(), compile_limits, native)


class Running:
    """A guest that is driven by the loop until it ends, as the process scheduler would."""

    def __init__(self, made: WasmRuntime, loaded: Program, process: Any = None,
                 limits: ProcessLimits | None = None) -> None:
        self._woken = asyncio.Event()
        self.guest: Guest = made.instantiate(loaded, process, limits or ProcessLimits(), self._woken.set)
        self.task = asyncio.create_task(self._drive())

    async def _drive(self) -> Outcome:
        while (how := self.guest.advance()) is not Advance.ENDED:
            if how is Advance.BLOCKED:
                await self._woken.wait()
                self._woken.clear()
            else:
                await asyncio.sleep(0)
        assert self.guest.outcome is not None
        return self.guest.outcome


async def run(made: WasmRuntime, wasm: bytes, process: Any = None, limits: ProcessLimits | None = None) -> Outcome:
    """Generously timed: nothing here takes a second on an idle machine."""
    async with asyncio.timeout(60):
        return await Running(made, await made.load(wasm), process, limits).task
