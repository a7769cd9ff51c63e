"""The Python interpreter image: one program whose payload is what users write."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING

from cadenza.kernel.limits import INTERPRETER_WALL_SECONDS, ProcessLimits
from cadenza.kernel.wasm.seams import Advance
from cadenza.kvfs.errors import Internal, Invalid

if TYPE_CHECKING:
    from cadenza.kernel.images import Payload
    from cadenza.kernel.wasm.runtime import Program, WasmRuntime

CHECK_LIMITS = ProcessLimits(cpu_fuel=20_000_000_000)


class Checked:
    """Stands in for a process while its payload is checked: all that `check` may ask for is the payload."""

    def __init__(self, payload: Payload) -> None:
        self.payload = payload
        self.text: list[str] = []

    def write(self, kind: str, text: str) -> None:
        self.text.append(text)


class Interpreter:
    """Loads the image once; checks payloads by running its `check`."""

    def __init__(self, path: Path, runtime: WasmRuntime) -> None:
        self._path = path
        self._runtime = runtime
        self._program: Program | None = None

    async def program(self) -> Program:
        """Compiled, the first time: what that may take is CPU time; on a busy machine it just takes longer."""
        if self._program is None:
            data = await asyncio.to_thread(self._path.read_bytes)
            self._program = await self._runtime.load(data, INTERPRETER_WALL_SECONDS)
        return self._program

    async def check(self, payload: Payload) -> None:
        """Raises Invalid with file and line if the payload is not well-formed."""
        awake = asyncio.Event()
        subject = Checked(payload)
        program = await self.program()
        with self._runtime.instantiate(program, subject, CHECK_LIMITS, awake.set, export="check") as guest:
            while (how := guest.advance()) is not Advance.ENDED:
                if how is Advance.BLOCKED:
                    await awake.wait()
                    awake.clear()
                else:
                    await asyncio.sleep(0)
            outcome = guest.outcome
        if outcome is None:
            raise Internal("the check of a program ended without an outcome")
        if outcome.ending != "finished":
            raise Invalid(outcome.message or f"the program could not be checked: {outcome.ending}", "data")
