"""The one place that wires everything: model, device, KV, Wasm, images, kernel."""

from __future__ import annotations

import asyncio
import gc
from dataclasses import dataclass, field
from pathlib import Path

from cadenza.kernel.batcher import WorkConserving
from cadenza.kernel.device.link import DeviceLink
from cadenza.kernel.engine import Engine
from cadenza.kernel.images import ImageStore
from cadenza.kernel.interpreter import Interpreter
from cadenza.kernel.kernel import Kernel
from cadenza.kernel.language import Language
from cadenza.kernel.limits import (
    KV_BYTES_PER_USER,
    RUN_AHEAD_STEPS,
    STAGING_PAGES,
    STEP_ROWS,
    STEP_TOKENS,
    ProcessLimits,
    file_limits,
)
from cadenza.kernel.memory.named import memory_policy
from cadenza.kernel.model.directory import resolve_directory
from cadenza.kernel.pager import Pager
from cadenza.kernel.profile import profile
from cadenza.kernel.storage import Storage
from cadenza.kernel.tools import Tools
from cadenza.kernel.wasm.runtime import WasmRuntime, native_calls
from cadenza.kvfs.directory import FileSystem
from cadenza.kvfs.errors import Unsupported
from cadenza.kvfs.pool import PagePool
from cadenza.kvfs.records import Layout
from cadenza.kvfs.store import Store
from cadenza.kvfs.tiers import Tiers
from cadenza.sdk.guest.build import BuildError, build
from cadenza.server.allowed import Allowed
from cadenza.server.devices import GIBIBYTE, start_device
from cadenza.server.limits import COLLECT_OBJECTS
from cadenza.server.options import MEMORY_POLICY, Progress, ServeOptions, default_cache
from cadenza.server.outside import Outside
from cadenza.syscalls.table import WIT, abi, handlers


@dataclass(frozen=True, slots=True)
class Assembly:
    """How a kernel is put together over a device that is up."""

    state: Path                                                  # what outlives the daemon
    cache: Path = field(default_factory=default_cache)           # what can be made again
    limits: ProcessLimits = field(default_factory=ProcessLimits)
    step_tokens: int = STEP_TOKENS
    step_rows: int = STEP_ROWS
    run_ahead: int = RUN_AHEAD_STEPS
    memory_policy: str = MEMORY_POLICY
    disk_bytes: int = 0                                          # of KV files, at most; 0: none are kept
    quota_bytes: int = KV_BYTES_PER_USER                         # KV of one user; 0: all that there is
    allowed: Allowed = field(default_factory=Allowed)            # of what programs ask for beyond the kernel


async def boot(options: ServeOptions, progress: Progress = lambda what, done, total: None) -> Kernel:
    """Everything up and warm. Raises a CadenzaError that says what is missing and how to mend it."""
    directory = await asyncio.to_thread(resolve_directory, options.model)
    language = await asyncio.to_thread(Language.from_directory, directory)
    link = await start_device(options, directory, progress)
    assembly = Assembly(options.state, options.cache, options.limits, options.step_tokens,
                        run_ahead=options.run_ahead, memory_policy=options.memory_policy,
                        quota_bytes=int((options.quota_gib or 0) * GIBIBYTE),
                        disk_bytes=int(options.disk_gib * GIBIBYTE), allowed=options.allowed)
    try:
        return await assemble(link, language, assembly, progress)
    except BaseException:
        link.close()
        raise


async def assemble(
    link: DeviceLink, language: Language, assembly: Assembly, progress: Progress = lambda what, done, total: None
) -> Kernel:
    """A kernel that is ready to spawn: the interpreter image built if need be, compiled, loaded."""
    facts = link.facts
    files = FileSystem(PagePool(facts.pages, facts.page_tokens), file_limits(facts.page_bytes, assembly.quota_bytes))
    store = await open_store(link, language, assembly)
    staging = STAGING_PAGES if store is not None else 0
    pager = Pager(files, Tiers(files.pool, facts.host_pages - staging, store))
    progress("profile the device", 0, 0)
    costs = await profile(link)
    progress("profile the device", 1, 1)
    batcher = WorkConserving(assembly.step_tokens, assembly.step_rows, min(costs.beside_decodes, assembly.step_tokens))
    engine = Engine(link, batcher, pager, costs=costs,
                    memory=memory_policy(assembly.memory_policy), run_ahead=assembly.run_ahead)
    storage = Storage(store, pager, link.host) if store is not None else None
    if storage is not None:
        storage.restore()
    kernel = Kernel(engine=engine, files=files, language=language, limits=assembly.limits, storage=storage,
                    tools=await open_tools(assembly.allowed, progress))
    runtime = WasmRuntime(handlers(kernel), assembly.cache / "compiled", abi(),
                          native=await asyncio.to_thread(native_calls, assembly.cache))
    interpreter = Interpreter(await interpreter_image(assembly.cache, progress), runtime)
    await kernel.adapters.open(assembly.state / "adapters")
    kernel.mount(runtime, ImageStore(assembly.state / "images", runtime, interpreter))
    progress("compile the interpreter", 0, 0)
    await interpreter.program()
    progress("compile the interpreter", 1, 1)
    collect_seldom()
    return kernel


def collect_seldom() -> None:
    """Of this whole process. What is loaded stays, so the garbage collector need not walk through it again. And a step
    makes objects for each of a thousand programs that die with the next step: they are no sign of garbage."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(COLLECT_OBJECTS)


async def open_store(link: DeviceLink, language: Language, assembly: Assembly) -> Store | None:
    """None if nothing is to be kept on disk. Raises Busy when another daemon has the directory, Damaged."""
    if not assembly.disk_bytes:
        return None
    facts = link.facts
    layout = Layout(language.facts.fingerprint, facts.page_bytes, facts.page_tokens, facts.weights)
    return await asyncio.to_thread(Store, assembly.state / "kv", layout, assembly.disk_bytes)


async def open_tools(allowed: Allowed, progress: Progress) -> Tools:
    """Raises Invalid. A server that does not start is tried again, and does not keep the daemon from starting."""
    if allowed == Allowed():
        return Tools()
    progress("start MCP servers", 0, 0)
    outside = await Outside.open(allowed)
    progress("start MCP servers", 1, 1)
    return Tools(outside, allowed.as_manifest())


async def interpreter_image(cache: Path, progress: Progress) -> Path:
    """Raises Unsupported when it has to be built and cannot be."""
    progress("build the interpreter", 0, 0)
    try:
        path = await asyncio.to_thread(build, cache / "python.wasm", WIT)
    except BuildError as error:
        raise Unsupported(str(error)) from error
    progress("build the interpreter", 1, 1)
    return path
