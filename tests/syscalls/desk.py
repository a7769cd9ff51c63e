"""A kernel over the NullDevice whose programs do nothing by themselves: the test makes their system calls.

Arguments are written as plain Python and turned into what the Wasm runtime would hand over, by their WIT types; answers
are checked against theirs.
"""

from __future__ import annotations

import asyncio
import functools
from collections import deque
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from types import TracebackType
from typing import Any

from cadenza.kernel.batcher import WorkConserving
from cadenza.kernel.device.batch import Device
from cadenza.kernel.device.local_link import LocalLink
from cadenza.kernel.device.null_device import NullDevice
from cadenza.kernel.engine import Engine
from cadenza.kernel.images import Executable, Image
from cadenza.kernel.kernel import Kernel
from cadenza.kernel.language import Language
from cadenza.kernel.limits import STEP_ROWS, STEP_TOKENS, ProcessLimits, file_limits
from cadenza.kernel.manifest import Manifest
from cadenza.kernel.model.facts import ModelFacts
from cadenza.kernel.pager import Pager
from cadenza.kernel.process import Process
from cadenza.kernel.tools import Tools
from cadenza.kernel.wasm.seams import Advance, ExitGuest, Outcome, Suspension
from cadenza.kernel.wasm.wit import Abi, Result, plain_name
from cadenza.kvfs.directory import FileSystem
from cadenza.kvfs.errors import NotFound
from cadenza.kvfs.pool import PagePool
from cadenza.kvfs.tiers import Tiers
from cadenza.syscalls.table import abi, handlers

from .values import arrive, check_answer

Turn = Callable[[], object]
FUNCTIONS = {plain_name(name): functions for name, functions in Abi.parse(abi()).functions.items()}
NO_CHANNELS = {"topics": 0, "queues": 0, "queued_bytes": 0}


class StubGuest:
    """A program that does, when it is its turn, what the test has given it to do; else it is blocked."""

    def __init__(self) -> None:
        self.turns: deque[Turn] = deque()
        self.outcome: Outcome | None = None

    def advance(self) -> Advance:
        while self.turns and self.outcome is None:
            try:
                self.turns.popleft()()
            except ExitGuest as end:
                self.kill(end.outcome)
        return Advance.BLOCKED if self.outcome is None else Advance.ENDED

    def kill(self, outcome: Outcome) -> None:
        self.outcome = self.outcome or outcome

    def close(self) -> None:
        self.kill(Outcome("killed", 1, "closed"))


@dataclass
class Counts:
    guests: int = 0


class StubRuntime:
    def __init__(self) -> None:
        self.guests: dict[int, StubGuest] = {}

    def instantiate(self, program: Any, process: Process, limits: ProcessLimits, wake: Turn) -> StubGuest:
        guest = self.guests[process.pid] = StubGuest()
        return guest

    def statistics(self) -> Counts:
        return Counts(len(self.guests))

    def close(self) -> None:
        """Holds nothing."""


class StubImages:
    """Each user has one image, `program-of-<user>`, with the manifest that the test gives it."""

    def __init__(self) -> None:
        self.manifests: dict[str, Manifest] = {}

    def get(self, owner: str, reference: str) -> Image:
        if reference != f"program-of-{owner}":
            raise NotFound(f"no image {reference!r}")
        return Image(reference, reference, "python", owner, 0, 0.0, self.manifests.get(owner, Manifest()))

    def ready(self, image: Any) -> Executable:
        program: Any = image
        return Executable(program, [("main.py", "pass")])


def wordless(vocabulary_size: int, context_tokens: int) -> Language:
    return Language(ModelFacts("wordless", "0" * 64, vocabulary_size, context_tokens, (2,), 1), None, None)


class Desk:
    """Use it as an async context manager: at its end every process is killed, and everything must have come back."""

    def __init__(self, *, limits: ProcessLimits | None = None, language: Language | None = None,
                 patience_seconds: float = 0.0, tools: Tools | None = None, model: Device | None = None,
                 link: LocalLink | None = None, **device: Any) -> None:
        """`model`: a device in place of a NullDevice, which is made of the rest; `link`: in place of one to it."""
        self.link = link or LocalLink(model or NullDevice(**device))
        facts = self.link.facts
        self.files = FileSystem(PagePool(facts.pages, facts.page_tokens), file_limits(facts.page_bytes))
        self.pager = Pager(self.files, Tiers(self.files.pool, facts.host_pages))
        self.engine = Engine(self.link, WorkConserving(STEP_TOKENS, STEP_ROWS), self.pager,
                             patience_seconds=patience_seconds)
        self.kernel = Kernel(
            engine=self.engine, files=self.files, limits=limits or ProcessLimits(),
            language=language or wordless(facts.vocabulary_size, facts.context_tokens), tools=tools)
        self.runtime = StubRuntime()
        runtime: Any = self.runtime
        self.images = StubImages()
        images: Any = self.images
        self.kernel.mount(runtime, images)
        self.handlers = handlers(self.kernel)

    def spawn(self, owner: str = "ada", **options: Any) -> Process:
        return self.kernel.spawn(owner, f"program-of-{owner}", "{}", **options)

    def ask(self, process: Process, call: str, *arguments: Any) -> Any:
        """Makes a system call; a blocking one answers its Suspension. Raises the error, or ExitGuest."""
        interface, function = call.split(".")
        type_ = FUNCTIONS[interface][function]
        given = [arrive(wanted, a) for (_, wanted), a in zip(type_.parameters, arguments, strict=True)]
        answer = self.handlers[interface][function](process, *given)
        if not isinstance(answer, Suspension):
            check_answer(type_.result.ok if isinstance(type_.result, Result) else type_.result, answer)
        return answer

    async def ask_and_wait(self, process: Process, call: str, *arguments: Any) -> Any:
        """The same, and the answer of a blocking call when it has come."""
        answer = self.ask(process, call, *arguments)
        if not isinstance(answer, Suspension):
            return answer
        awake = asyncio.Event()
        answer.subscribe(awake.set)
        await asyncio.wait_for(awake.wait(), 20)
        return answer.answer()

    async def wait(self, process: Process, *handles: int, until: str = "all", timeout_ns: int | None = None) -> Any:
        return await self.ask_and_wait(process, "events.wait", list(handles), until, timeout_ns, [])

    async def turn(self, process: Process, *turns: Turn) -> None:
        """Lets the program itself do `turns`, on its own stack, as it is when they end it."""
        self.runtime.guests[process.pid].turns.extend(turns)
        process.wake()
        await self.settle()

    async def settle(self) -> None:
        """Until nothing happens any more but by the clock."""
        for _ in range(50):
            await asyncio.sleep(0)

    def check_all_returned(self) -> None:
        """Nobody holds anything but files by their names."""
        self.kernel.recount()
        held = self.files.statistics()
        assert held["files"] == held["named"], "a nameless file outlived who held it"
        assert self.engine.lanes.taken == 0, "a lane outlived its run"
        assert not self.engine.busy, "work outlived its process"
        assert self.kernel.tools.statistics()["open"] == 0, "a call outlived its process"

    async def __aenter__(self) -> Desk:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None,
                        trace: TracebackType | None) -> None:
        for owner in ("ada", "bob"):
            for process in self.kernel.processes(owner):
                process.kill()
        if error is None:
            self.check_all_returned()
        await self.kernel.close()


def in_loop(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """Runs an async test; an error that nobody catches inside the event loop fails it."""
    @functools.wraps(test)
    def run(*arguments: Any, **named: Any) -> None:
        faults: list[str] = []

        async def watched() -> None:
            loop = asyncio.get_running_loop()
            loop.set_exception_handler(lambda _, context: faults.append(f"{context['message']}: "
                                                                        f"{context.get('exception')!r}"))
            await test(*arguments, **named)
        asyncio.run(watched())
        assert not faults, faults
    return run


def a_sampler(**more: Any) -> dict[str, Any]:
    return {"temperature": 0.0, "top_k": 0, "top_p": 1.0, "min_p": 0.0, "seed": 0, "bias": [],
            "penalties": None, **more}


def a_pass(file: int, tokens: list[int], **more: Any) -> dict[str, Any]:
    return {"file": file, "reads": [], "tokens": tokens, "positions": [], "visible": [], "mask": None, "samples": [],
            "probes": [], "adapter": None, "scores_from": None, "grammar": None,
            **more}


def a_run(file: int, tokens: list[int], **more: Any) -> dict[str, Any]:
    return {"file": file, "reads": [], "tokens": tokens, "positions": [], "mask": None, "sampler": a_sampler(),
            "max_tokens": 4, "stop_tokens": [], "stop_sequences": [], "deliver_every": 1, "adapter": None,
            "states": [], "grammar": None, **more}


def a_draft(file: int, token: int, tokens: list[int], parents: list[int], **more: Any) -> dict[str, Any]:
    return {"file": file, "reads": [], "token": token, "tokens": tokens, "parents": parents, "sampler": a_sampler(),
            "mask": None, "adapter": None, "grammar": None, **more}
