"""The whole system in one process: real Wasm, the real interpreter, a NullDevice, and nothing in between."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from cadenza.kernel.device.batch import Device
from cadenza.kernel.device.local_link import LocalLink
from cadenza.kernel.device.null_device import NullDevice
from cadenza.kernel.kernel import Kernel
from cadenza.kernel.language import Language
from cadenza.kernel.limits import ProcessLimits
from cadenza.kernel.model.facts import ModelFacts
from cadenza.kernel.process import ExitStatus, Process
from cadenza.server.allowed import Allowed
from cadenza.server.boot import Assembly, assemble

PATIENCE_SECONDS = 60.0


class Whole:
    """A kernel, and short ways to run programs on it."""

    def __init__(self, kernel: Kernel) -> None:
        self.kernel = kernel

    async def start(self, source: str | bytes, arguments: dict[str, Any] | None = None, *, user: str = "ada",
                    limits: ProcessLimits | None = None) -> Process:
        data = source.encode() if isinstance(source, str) else source
        image = await self.kernel.images.add(user, data)
        return self.kernel.spawn(user, image.digest, json.dumps(arguments or {}), limits=limits)

    async def run(self, source: str | bytes, arguments: dict[str, Any] | None = None, **more: Any) -> Process:
        """The process, ended."""
        process = await self.start(source, arguments, **more)
        await end_of(process)
        return process


async def end_of(process: Process) -> ExitStatus:
    return await asyncio.wait_for(process.ended(), PATIENCE_SECONDS)


async def said(process: Process, text: str) -> None:
    """Waits until the process has said `text`."""
    seen = 0
    while text not in output(process):
        assert process.exit is None, (process.exit, output(process, "error"))
        await asyncio.wait_for(process.output.changed(seen), PATIENCE_SECONDS)
        seen = process.output.read(0)[0][-1].sequence


def output(process: Process, kind: str = "output") -> str:
    return "".join(event.text for event in process.output.read(0)[0] if event.kind == kind)


@asynccontextmanager
async def whole(state: Path, limits: ProcessLimits | None = None, *, allowed: Allowed | None = None,
                model: Device | None = None, language: Language | None = None, **device: Any) -> AsyncIterator[Whole]:
    """Recounted at its end: nothing may be left behind. `model`: a device in place of a NullDevice, which is made of
    the rest. `language`: of a model that has words."""
    link = LocalLink(model or NullDevice(**device))
    facts = ModelFacts("null", "0" * 64, link.facts.vocabulary_size, link.facts.context_tokens, (0,), None)
    assembly = Assembly(state, limits=limits or ProcessLimits(), allowed=allowed or Allowed())
    kernel = await assemble(link, language or Language(facts, None, None), assembly)
    try:
        yield Whole(kernel)
        for process in list(kernel.processes("ada")) + list(kernel.processes("bob")):
            process.kill()
        kernel.recount()
        numbers = kernel.statistics()
        assert (numbers["kv_used"], numbers["engine_lanes"], numbers["wasm_guests"]) == (0, 0, 0), numbers
    finally:
        await kernel.close()


def in_loop(test: Callable[[], Awaitable[None]]) -> None:
    async def main() -> None:
        await test()

    asyncio.run(main())
