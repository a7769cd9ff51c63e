"""What a guest may use: at the limit, one past it, and a neighbour who notices nothing."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import wasmtime

from cadenza.kernel.limits import HEAVY_SLICES, SLICE_FUEL, WASM_STACK_BYTES, ProcessLimits
from cadenza.kernel.virtual_clock import simulate
from cadenza.kernel.wasm.fiber_unsafe import living
from cadenza.kernel.wasm.runtime import WasmRuntime
from cadenza.kernel.wasm.seams import Advance, Handler, Outcome, quick

from .component_text import program, program_text
from .guests import ABI, BLOCK, LOG, OK, PID, WAIT, Running, Waiting, entry, guest_program, run, runtime

PAGE = 65536
LOOP = "(local.set $n (i32.const {turns})) (loop $l (br_if $l (local.tee $n (i32.sub (local.get $n) (i32.const 1)))))"
SPINS = guest_program(entry("", f"(loop $l (br $l)) {OK}"))
NEIGHBOUR = guest_program(
    entry(PID, f"(loop $l (br_if $l (i32.lt_u (call $pid) (i32.const 500)))) {OK}"), "process pid")
# Computes for long enough to be moved to a worker thread, then asks, then computes again.
COMPUTES = guest_program(entry(
    PID, f"{LOOP.format(turns=20_000_000)} (drop (call $pid)) {LOOP.format(turns=20_000_000)} {OK}", "(local $n i32)"),
    "process pid")


def counting() -> Any:
    """A `pid` handler that answers how often it was called."""
    calls = iter(range(1, 10**6))
    return lambda _: next(calls)


def grows_to(pages: int) -> bytes:
    """Fails if memory, 2 pages at first, cannot grow to `pages`; writes to its last byte if it can."""
    message = '(data (i32.const 32) "no memory")'
    fails = ("(i32.store8 (i32.const 16) (i32.const 1)) (i32.store (i32.const 20) (i32.const 32))"
             " (i32.store (i32.const 24) (i32.const 9))")
    return guest_program(message + entry(
        "", f"(if (i32.eq (memory.grow (i32.const {pages - 2})) (i32.const -1)) (then {fails})"
        f" (else (i32.store8 (i32.const {pages * PAGE - 1}) (i32.const 1)))) {OK}"))


async def beside(wasm: WasmRuntime, source: bytes, limits: ProcessLimits) -> Outcome:
    """The outcome of a guest under `limits`; its neighbour, started before, must finish."""
    neighbour = Running(wasm, await wasm.load(NEIGHBOUR))
    ended = await run(wasm, source, None, limits)
    assert await neighbour.task == Outcome("finished")
    return ended


def outcomes(cache: Path, *guests: tuple[bytes, ProcessLimits]) -> list[Outcome]:
    async def main() -> list[Outcome]:
        with runtime(cache, pid=counting()) as wasm:
            return [await beside(wasm, source, limits) for source, limits in guests]
    return asyncio.run(main())


def test_memory_at_the_limit_and_past_it(cache: Path) -> None:
    limits = ProcessLimits(memory_bytes=32 * PAGE)
    assert outcomes(cache, (grows_to(32), limits), (grows_to(33), limits)) == [
        Outcome("finished"), Outcome("failed", 1, "no memory")]


def test_memory_beyond_what_is_reserved(cache: Path) -> None:
    limits = ProcessLimits(memory_bytes=ProcessLimits().memory_bytes + PAGE)
    pages = limits.memory_bytes // PAGE
    assert outcomes(cache, (grows_to(pages), limits), (grows_to(pages + 1), limits)) == [
        Outcome("finished"), Outcome("failed", 1, "no memory")]


def test_memory_that_is_asked_for_at_the_start(cache: Path) -> None:
    ended, = outcomes(cache, (SPINS, ProcessLimits(memory_bytes=PAGE)))
    assert ended.ending == "memory-limit"
    assert "memory_bytes" in ended.message


def test_who_ends_of_memory_that_was_denied_is_told_so_by_where_it_ended(cache: Path) -> None:
    def ends_in(name: str) -> bytes:
        grow = "(memory.grow (i32.const 33))"
        return guest_program(f"(func ${name} unreachable)" + entry(
            "", f"(if (i32.eq {grow} (i32.const -1)) (then (call ${name}))) {OK}"))

    limits = ProcessLimits(memory_bytes=32 * PAGE)
    names = ("cadenza_out_of_memory", "alloc::alloc::handle_alloc_error", "chosen_otherwise")
    *told, guessed = outcomes(cache, *((ends_in(name), limits) for name in names))
    assert {one.ending for one in told} == {"memory-limit"}
    assert all("memory_bytes" in one.message and name in one.message for one, name in zip(told, names, strict=False))
    assert (guessed.ending, "memory_bytes" in guessed.message) == ("trapped", True)


def test_one_memory_a_guest(cache: Path) -> None:
    text = program_text({}, entry("", OK))
    second = "(core module $second (memory 1)) (core instance (instantiate $second))"
    ended, = outcomes(cache, (bytes(wasmtime.wat2wasm(text[:-1] + second + ")")), ProcessLimits()))
    assert ended.ending == "memory-limit"


def test_fuel_at_the_limit_and_past_it(cache: Path) -> None:
    wasm, longer = (guest_program(entry("", LOOP.format(turns=turns) + OK, "(local $n i32)")) for turns in (1000, 1010))

    async def main() -> None:
        with runtime(cache, pid=counting()) as made:
            with made.instantiate(await made.load(wasm), None, ProcessLimits(), print) as guest:
                assert guest.advance() is Advance.ENDED
                used = guest.fuel_used
            assert used > 1000
            assert await beside(made, wasm, ProcessLimits(cpu_fuel=used)) == Outcome("finished")
            ended = await beside(made, longer, ProcessLimits(cpu_fuel=used))
            assert ended == Outcome("cpu-limit", 1, f"used all of its {used} instructions (cpu_fuel)")
    asyncio.run(main())


def test_one_who_spins_stops_nobody_and_can_be_killed(cache: Path) -> None:
    async def main() -> None:
        with runtime(cache, pid=counting()) as wasm:
            program_ = await wasm.load(SPINS)
            spinners = [Running(wasm, program_) for _ in range(5)]       # more than there are worker threads
            for _ in range(2 * HEAVY_SLICES):
                await asyncio.sleep(0)
            assert {one.guest.advance() for one in spinners} == {Advance.BLOCKED}   # on worker threads by now
            assert await run(wasm, NEIGHBOUR) == Outcome("finished")
            assert all(one.guest.outcome is None for one in spinners)
            for one in spinners:
                one.guest.kill(Outcome("killed", 9))
                assert one.guest.advance() is Advance.ENDED
            async with asyncio.timeout(60):
                while living():                                          # until their slices end
                    await asyncio.sleep(0.01)
            for one in spinners:
                one.task.cancel()
    asyncio.run(main())


def test_one_who_spins_ends_at_its_cpu_limit(cache: Path) -> None:
    fuel = 4 * HEAVY_SLICES * SLICE_FUEL
    ended, = outcomes(cache, (SPINS, ProcessLimits(cpu_fuel=fuel)))
    assert ended == Outcome("cpu-limit", 1, f"used all of its {fuel} instructions (cpu_fuel)")


def test_stack_at_the_limit_and_past_it(cache: Path) -> None:
    deeper = ("(func $deeper (param i32) (result i32) (if (result i32) (local.get 0) (then (i32.add (i32.const 1)"
              " (call $deeper (i32.sub (local.get 0) (i32.const 1))))) (else (i32.const 0))))")
    wasm = guest_program(f"{PID} {deeper} {entry('', f'(drop (call $deeper (call $pid))) {OK}')}", "process pid")
    calls = counting()
    depth = 0

    async def main() -> None:
        nonlocal depth
        with runtime(cache, pid=lambda process: depth if process == "deep" else calls(process)) as made:
            loaded, fits, too_deep = await made.load(wasm), 1, WASM_STACK_BYTES

            async def ended() -> Outcome:
                return await Running(made, loaded, "deep").task

            while too_deep - fits > 1:
                depth = (fits + too_deep) // 2
                fits, too_deep = (depth, too_deep) if await ended() == Outcome("finished") else (fits, depth)
            for depth in (fits, too_deep):
                neighbour = Running(made, await made.load(NEIGHBOUR))
                ending = await ended()
                assert await neighbour.task == Outcome("finished")
                assert (ending.ending == "finished") == (depth == fits)
            assert "call stack exhausted" in ending.message
            assert 8 < WASM_STACK_BYTES / fits < 256             # a frame is that large

    asyncio.run(main())


@pytest.mark.parametrize("mark", [lambda handler: handler, quick], ids=["plain", "quick"])
def test_one_who_computes_on_a_worker_thread_still_calls(cache: Path, mark: Callable[[Handler], Handler]) -> None:
    seen: list[Any] = []

    def pid(process: Any) -> int:
        seen.append((process, threading.current_thread()))
        return 1

    async def main() -> None:
        with runtime(cache, pid=mark(pid)) as wasm:
            assert await run(wasm, COMPUTES, "process") == Outcome("finished")
    asyncio.run(main())
    assert seen == [("process", threading.main_thread())]


def test_what_a_guest_computes_takes_no_virtual_time(cache: Path) -> None:
    """It goes to a worker thread and back; a clock that jumped meanwhile would ring the timer first."""
    asked: list[float] = []

    async def main() -> float:
        loop = asyncio.get_running_loop()
        loop.call_later(0.001, asked.append, -1.0)
        with runtime(cache, pid=lambda _: asked.append(loop.time()) or 1) as wasm:
            assert await run(wasm, COMPUTES) == Outcome("finished")
        return loop.time()

    async def compiled() -> None:                                        # by a child process: no virtual clock then
        with runtime(cache) as wasm:
            await wasm.load(COMPUTES)

    asyncio.run(compiled())
    assert (simulate(main()), asked) == (0.0, [0.0])


def test_the_runtime_closes_over_guests_that_compute_or_wait(cache: Path) -> None:
    async def main() -> None:
        waiting = Waiting()
        blocks = guest_program(entry(WAIT, f"{BLOCK} {OK}"), "events wait")
        with runtime(cache, wait=lambda *_: waiting) as wasm:
            running = [Running(wasm, await wasm.load(source)) for source in (SPINS, blocks, SPINS)]
            for _ in range(2 * HEAVY_SLICES):
                await asyncio.sleep(0)
        assert (living(), waiting.abandoned) == (0, 1)
        wasm.close()
        for one in running:
            assert one.guest.outcome == Outcome("killed", 1, "closed")
            one.task.cancel()
    asyncio.run(main())


def test_what_is_copied_to_the_host_at_once_is_bounded(cache: Path) -> None:
    """A long list costs the host many times what it costs the guest."""
    interface = "cadenza:kernel/model@0.1.0"
    wasm = program({interface: {"detokenize": ABI.functions[interface]["detokenize"]}}, entry(
        '(import "model" "detokenize" (func $detokenize (param i32 i32 i32 i32)))',
        "(drop (memory.grow (i32.const 3000)))"
        f"(call $detokenize (i32.const 0) (i32.const 40000000) (i32.const 0) (i32.const 2048)) {OK}"))
    called: list[Any] = []

    async def main() -> Outcome:
        with runtime(cache, pid=counting(), detokenize=lambda *_: called.append(1)) as made:
            return await beside(made, wasm, ProcessLimits())
    ended = asyncio.run(main())
    assert ended.ending == "trapped"
    assert "too much data" in ended.message
    assert called == []


@pytest.mark.parametrize("size", [0, 1, 1 << 20])
def test_texts_of_any_size_arrive_whole(cache: Path, size: int) -> None:
    sizes: list[int] = []
    wasm = guest_program(entry(
        LOG, "(drop (memory.grow (i32.const 40)))"
        f"(call $log (i32.const 0) (i32.const {2 * PAGE}) (i32.const {size}) (i32.const 2048)) {OK}"), "process log")

    async def main() -> Outcome:
        with runtime(cache, log=lambda p, to, text: sizes.append(len(text))) as made:
            return await run(made, wasm)
    assert asyncio.run(main()) == Outcome("finished")
    assert sizes == [size]
