"""Loading: what is refused and in which words, what a compiler may use, and what is found again."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
import wasmtime

from cadenza.kernel.interpreter import Interpreter
from cadenza.kernel.limits import COMPILE_WALL_SECONDS, IMAGE_BYTES, INTERPRETER_WALL_SECONDS, ProcessLimits
from cadenza.kernel.wasm import wit
from cadenza.kernel.wasm.runtime import CompileLimits, Program, WasmRuntime, WasmStatistics
from cadenza.kernel.wasm.seams import Outcome
from cadenza.kvfs.errors import CadenzaError, Invalid, LimitExceeded

from .component_text import WIT, program, program_text
from .guests import ABI, HEARTBEATS, OK, entry, guest_program, run, runtime

PLAIN = guest_program(entry("", OK))
PROCESS = "cadenza:kernel/process@0.1.0"
U32 = wit.Scalar("u32")


def component(text: str) -> bytes:
    return bytes(wasmtime.wat2wasm(text))


def load(cache: Path, wasm: bytes) -> Program:
    async def main() -> Program:
        with runtime(cache) as made:
            return await made.load(wasm)
    return asyncio.run(main())


def refusal(cache: Path, wasm: bytes) -> CadenzaError:
    with pytest.raises(CadenzaError) as refused:
        load(cache, wasm)
    return refused.value


@pytest.mark.parametrize(("wasm", "words"), [
    (b"", "not Wasm"),
    (b"#!/usr/bin/python3", "not Wasm"),
    (component("(module)"), "core Wasm module"),
    (b"\0asm\x63\0\x01\0", "unknown version"),
    (PLAIN[:len(PLAIN) // 2], "out of bounds"),
    (PLAIN.replace(b"memory", b"\xff\xfe\xfdory"), "malformed UTF-8"),
    (component("(component)"), "exports no function `run`"),
    (component('(component (import "wasi:sockets/tcp@0.2.0" (instance))'
               '           (import "cadenza:kernel/kv@9.0.0" (instance)))'),
     "imports wasi:sockets/tcp@0.2.0, cadenza:kernel/kv@9.0.0, which Cadenza does not provide"),
    (component('(component (import "run" (func)))'), "imports run, which"),
    (component('(component (import "cadenza:kernel/process@0.1.0" (func)))'), "an interface is expected"),
    (program({PROCESS: {"pid": wit.Function((), wit.Scalar("u64"))}}, entry("", OK)), "pid (of another type)"),
    (program({PROCESS: {"pid": wit.Function((("x", U32),), U32)}}, entry("", OK)), "pid (of another type)"),
    (program({PROCESS: {"fly": wit.Function((), U32)}}, entry("", OK)), "fly (unknown)"),
    (component(program_text({}, entry("", OK)).replace("(result (error string))", "(result string (error string))")
               .replace("(memory (core memory", "(realloc (core func $memory \"realloc\")) (memory (core memory")),
     "`run` of another type"),
])
def test_what_is_no_program_is_refused(cache: Path, wasm: bytes, words: str) -> None:
    error = refusal(cache, wasm)
    assert isinstance(error, Invalid)
    assert words in error.message
    assert list(cache.glob("compile-*")) == []


def test_too_many_foreign_imports_are_counted(cache: Path) -> None:
    text = "".join(f'(import "other:one/i{n}" (instance))' for n in range(30))
    assert "other:one/i7 and 22 more, which" in refusal(cache, component(f"(component {text})")).message


def test_every_function_of_the_abi_is_compared_with_its_type(cache: Path) -> None:
    imports = {name: functions for name, functions in ABI.functions.items() if functions}
    assert load(cache, program(imports, entry("", OK))).exports.keys() == {"run"}


def test_a_function_without_a_handler_is_refused(cache: Path) -> None:
    async def main() -> None:
        with WasmRuntime({"process": {}}, cache, WIT.read_text()) as made, pytest.raises(Invalid) as refused:
            await made.load(program({PROCESS: {"pid": ABI.functions[PROCESS]["pid"]}}, entry("", OK)))
        assert "pid (not provided by this kernel)" in refused.value.message
    asyncio.run(main())


def test_a_program_over_the_limit_is_refused(cache: Path) -> None:
    error = refusal(cache, b"\0asm\x0d\0\x01\0" + bytes(IMAGE_BYTES))
    assert isinstance(error, LimitExceeded)
    assert error.limit == "IMAGE_BYTES"


def test_both_exports_are_run(cache: Path) -> None:
    fails = ('(func (export "check") (result i32) (i32.store8 (i32.const 96) (i32.const 1))'
             '  (i32.store (i32.const 100) (i32.const 200)) (i32.store (i32.const 104) (i32.const 5)) (i32.const 96))'
             '(data (i32.const 200) "wrong")')

    async def main() -> None:
        with runtime(cache) as made:
            loaded = await made.load(program({}, entry("", OK) + fails, check=True))
            assert loaded.exports.keys() == {"run", "check"}
            with made.instantiate(loaded, None, ProcessLimits(), print, export="check") as guest:
                guest.advance()
                assert guest.outcome == Outcome("failed", 1, "wrong")
            with pytest.raises(Invalid, match="no 'check'"):
                made.instantiate(await made.load(PLAIN), None, ProcessLimits(), print, export="check")
    asyncio.run(main())


def bomb() -> bytes:
    """One long function: each of its bytes costs the compiler a kilobyte, and its time is no line."""
    chain = "local.get 0 i32.load i32.const 7 i32.add local.set 0 " * 100_000
    return component(program_text({}, f"(func (param i32) {chain}) " + entry("", OK)))


@pytest.mark.parametrize(("limits", "name"), [
    (CompileLimits(cpu_seconds=1), "COMPILE_SECONDS"),
    (CompileLimits(address_bytes=400 << 20), "COMPILE_BYTES"),
    (CompileLimits(wall_seconds=0.8), "COMPILE_WALL_SECONDS"),
])
def test_a_compile_bomb_is_refused_and_stops_nobody(tmp_path: Path, limits: CompileLimits, name: str) -> None:
    cache = tmp_path / "cache"

    async def main() -> None:
        with runtime(cache, limits) as made:
            loading = asyncio.create_task(made.load(bomb()))
            beats = 0
            while not loading.done():
                await asyncio.sleep(0.005)
                beats += 1
            with pytest.raises(LimitExceeded) as refused:
                await loading
            assert refused.value.limit == name
            assert beats > HEARTBEATS
            if name != "COMPILE_WALL_SECONDS":             # which a busy machine may take for anything
                assert await run(made, PLAIN) == Outcome("finished")
    asyncio.run(main())
    assert list(cache.glob("compile-*")) == []


def test_the_interpreter_has_more_time_than_an_upload_and_no_more_of_the_cpu(tmp_path: Path) -> None:
    async def main() -> None:
        own = tmp_path / "own.wasm"
        with runtime(tmp_path / "cache", CompileLimits(wall_seconds=0.01)) as made:
            with pytest.raises(LimitExceeded, match=r"over 0\.01 s \(COMPILE_WALL_SECONDS\)"):
                await made.load(PLAIN)
            own.write_bytes(PLAIN)
            assert await Interpreter(own, made).program() is await made.load(PLAIN)
        with runtime(tmp_path / "cache", CompileLimits(cpu_seconds=1)) as made:
            own.write_bytes(bomb())
            with pytest.raises(LimitExceeded, match="COMPILE_SECONDS"):
                await Interpreter(own, made).program()
    asyncio.run(main())
    assert INTERPRETER_WALL_SECONDS > 10 * COMPILE_WALL_SECONDS


def test_a_program_is_compiled_once(tmp_path: Path) -> None:
    async def main() -> list[WasmStatistics]:
        with runtime(tmp_path / "cache") as made:
            first, second = await asyncio.gather(made.load(PLAIN), made.load(PLAIN))
            assert first is second
            assert first is await made.load(PLAIN)
            once = made.statistics()
        with runtime(tmp_path / "cache") as made:
            again = await made.load(PLAIN)
            assert again.digest == first.digest
            return [once, made.statistics()]
    once, again = asyncio.run(main())
    assert (once.compiled, once.loaded_from_disk, once.found_in_memory) == (1, 0, 1)
    assert (again.compiled, again.loaded_from_disk, again.programs) == (0, 1, 1)


def test_another_abi_is_another_artifact(tmp_path: Path) -> None:
    async def main() -> int:
        with WasmRuntime({}, tmp_path / "cache", WIT.read_text()) as one:
            await one.load(PLAIN)
        with WasmRuntime({}, tmp_path / "cache", WIT.read_text() + "\n// changed") as other:
            await other.load(PLAIN)
            return other.statistics().compiled
    assert asyncio.run(main()) == 1


def test_a_spoilt_artifact_is_made_anew(tmp_path: Path) -> None:
    load(tmp_path / "cache", PLAIN)
    artifact, = (tmp_path / "cache").glob("*.cwasm")
    artifact.write_bytes(b"spoilt")
    assert load(tmp_path / "cache", PLAIN).exports.keys() == {"run"}
    assert artifact.stat().st_size > 1000


def test_an_artifact_that_others_may_write_is_not_loaded(tmp_path: Path) -> None:
    load(tmp_path / "cache", PLAIN)
    artifact, = (tmp_path / "cache").glob("*.cwasm")
    artifact.chmod(0o666)

    async def main() -> int:
        with runtime(tmp_path / "cache") as made:
            await made.load(PLAIN)
            return made.statistics().compiled
    assert asyncio.run(main()) == 1


def test_a_cache_that_is_open_to_others_is_refused(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    with pytest.raises(Invalid, match="chmod 700"):
        runtime(tmp_path)


def test_one_who_stops_waiting_takes_nothing_from_the_others(tmp_path: Path) -> None:
    async def main() -> None:
        with runtime(tmp_path / "cache") as made:
            impatient = asyncio.create_task(made.load(PLAIN))
            patient = asyncio.create_task(made.load(PLAIN))
            await asyncio.sleep(0.05)
            impatient.cancel()
            assert (await patient).exports.keys() == {"run"}
            assert impatient.cancelled() or impatient.cancelling()
    asyncio.run(main())
