"""The one place that wires everything: model, device, KV, Wasm, images, kernel."""

from __future__ import annotations

import asyncio
from pathlib import Path

from cadenza.kernel.batcher import WorkConserving
from cadenza.kernel.device.link import DeviceLink
from cadenza.kernel.device.worker_link import WorkerLink
from cadenza.kernel.engine import Engine
from cadenza.kernel.images import ImageStore
from cadenza.kernel.interpreter import Interpreter
from cadenza.kernel.kernel import Kernel
from cadenza.kernel.language import Language
from cadenza.kernel.limits import STEP_ROWS, STEP_TOKENS, ProcessLimits
from cadenza.kernel.model.directory import resolve_directory
from cadenza.kernel.wasm.runtime import WasmRuntime
from cadenza.kernel.wasm.seams import Handler
from cadenza.kvfs.directory import FileSystem
from cadenza.kvfs.pool import PagePool
from cadenza.sdk.guest.build import build
from cadenza.server.options import Progress, ServeOptions
from cadenza.syscalls.table import handlers

WIT = Path(__file__).resolve().parent.parent / "syscalls" / "wit"


async def boot(options: ServeOptions, progress: Progress = lambda what, done, total: None) -> Kernel:
    """Everything up and warm. Raises a CadenzaError that says what is missing and how to mend it."""
    directory = await asyncio.to_thread(resolve_directory, options.model)
    image, language = await asyncio.gather(
        asyncio.to_thread(build, options.state / "images" / "python.wasm", WIT),
        asyncio.to_thread(Language.from_directory, directory),
    )
    link = await start_device(options, directory, progress)
    return await assemble(link, language, image, options.state, options.limits)


async def assemble(
    link: DeviceLink, language: Language, interpreter: Path, state: Path, limits: ProcessLimits | None = None,
    *, step_tokens: int = STEP_TOKENS, step_rows: int = STEP_ROWS,
) -> Kernel:
    """A kernel over a device that is up. `interpreter`: the Python image; `state`: what outlives the daemon."""
    pool = PagePool(link.facts.pages, link.facts.page_tokens)
    files = FileSystem(pool)
    engine = Engine(link, WorkConserving(step_tokens, step_rows))
    calls: dict[str, dict[str, Handler]] = {}
    runtime = WasmRuntime(calls, state / "compiled")
    python = Interpreter(interpreter, runtime)
    kernel = Kernel(engine=engine, files=files, runtime=runtime, language=language, limits=limits or ProcessLimits(),
                    images=ImageStore(state / "images", runtime, python))
    calls.update(handlers(kernel))
    await python.program()
    return kernel


async def start_device(options: ServeOptions, directory: Path, progress: Progress) -> DeviceLink:
    raise NotImplementedError
