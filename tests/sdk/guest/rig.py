"""A whole kernel around the interpreter image: the real Wasm runtime and system calls, a device that says a script."""

from __future__ import annotations

import asyncio
import io
import json
import zipfile
from collections import deque
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cadenza.kernel import model as models
from cadenza.kernel.device.local_link import LocalLink
from cadenza.kernel.device.null_device import Draw, NullDevice
from cadenza.kernel.kernel import Kernel
from cadenza.kernel.language import Language
from cadenza.kernel.limits import ProcessLimits
from cadenza.kernel.model.chat import ChatTemplate
from cadenza.kernel.model.facts import ModelFacts
from cadenza.kernel.model.tokenizer import Tokenizer
from cadenza.kernel.process import ExitStatus, Process
from cadenza.server.boot import Assembly, assemble
from cadenza.server.options import default_cache

BUNDLED = Path(models.__path__[0]) / "bundled"
CONTEXT_TOKENS = 2048


class Replies:
    """What the model says: after a generation prompt the next of `texts`, and so on to its end in that lane."""

    def __init__(self, tokenizer: Tokenizer, texts: Iterable[str]) -> None:
        self._texts = deque(tokenizer.encode(text + "<|end|>", True) for text in texts)
        self._prompt = tokenizer.encode("<|assistant|>", True)[0]
        self._lanes: dict[int, deque[int]] = {}
        self._end = tokenizer.encode("<|end|>", True)[0]

    def __call__(self, draw: Draw) -> int:
        if draw.token == self._prompt:
            self._lanes[draw.lane] = self._texts.popleft() if self._texts else deque()
            self._lanes[draw.lane] = deque(self._lanes[draw.lane])
        said = self._lanes.get(draw.lane)
        return said.popleft() if said else self._end


@dataclass(frozen=True)
class Ended:
    """How a program ended and what it had said."""

    status: ExitStatus
    output: str
    error: str
    messages: list[str]


class Rig:
    def __init__(self, kernel: Kernel) -> None:
        self.kernel = kernel

    async def spawn(
        self,
        program: str | Mapping[str, str],
        arguments: Mapping[str, Any] | None = None,
        *,
        name: str = "",
        limits: ProcessLimits | None = None,
    ) -> Process:
        data = program.encode() if isinstance(program, str) else zipped(program)
        image = await self.kernel.images.add("ada", data, name=name)
        return self.kernel.spawn("ada", image.digest, json.dumps(arguments or {}), limits=limits)

    async def end(self, process: Process) -> Ended:
        status = await asyncio.wait_for(process.ended(), 60)
        events, lost = process.output.read(0)
        assert not lost
        said = {kind: [event.text for event in events if event.kind == kind] for kind in ("output", "error", "message")}
        return Ended(status, "".join(said["output"]), "".join(said["error"]), said["message"])

    async def run(
        self, program: str | Mapping[str, str], arguments: Mapping[str, Any] | None = None, **more: Any
    ) -> Ended:
        return await self.end(await self.spawn(program, arguments, **more))


@asynccontextmanager
async def rig(state: Path, replies: Iterable[str] = ()) -> AsyncIterator[Rig]:
    """Builds and compiles the image if it is not in the cache: that takes a minute."""
    vocabulary = json.loads((BUNDLED / "tokenizer.json").read_text())
    size = len(vocabulary["model"]["vocab"]) + len(vocabulary["added_tokens"])
    tokenizer = Tokenizer(vocabulary, size, stop_tokens=[2], begin_token=1)
    facts = ModelFacts("scripted", "0", size, CONTEXT_TOKENS, (2,), 1)
    language = Language(facts, tokenizer, ChatTemplate.from_directory(BUNDLED))
    device = NullDevice(vocabulary_size=size, context_tokens=CONTEXT_TOKENS, script=Replies(tokenizer, replies))
    kernel = await assemble(LocalLink(device), language, Assembly(state, default_cache()))
    try:
        yield Rig(kernel)
        kernel.recount()
    finally:
        await kernel.close()


def ended(
    state: Path,
    program: str | Mapping[str, str],
    arguments: Mapping[str, Any] | None = None,
    *,
    replies: Iterable[str] = (),
    limits: ProcessLimits | None = None,
) -> Ended:
    """One program from its upload to its end."""

    async def main() -> Ended:
        async with rig(state, replies) as here:
            return await here.run(program, arguments, limits=limits)

    return asyncio.run(main())


def zipped(files: Mapping[str, str]) -> bytes:
    written = io.BytesIO()
    with zipfile.ZipFile(written, "w") as archive:
        for path, text in files.items():
            archive.writestr(path, text)
    return written.getvalue()


