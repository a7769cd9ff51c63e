"""The whole system around programs that use the library: the bundled model in its worker, real Wasm, one event loop."""

from __future__ import annotations

import asyncio
import io
import json
import zipfile
from pathlib import Path
from typing import Any

from cadenza.kernel.kernel import Kernel
from cadenza.kernel.process import ExitStatus, Process
from cadenza.server.boot import boot
from cadenza.server.options import ServeOptions

PACKAGE = Path(__file__).resolve().parents[2] / "inferlets" / "prompt_modules"
PATIENCE_SECONDS = 60.0


def program(main: str) -> bytes:
    """An upload: `main` as its main.py, and the library beside it."""
    written = io.BytesIO()
    with zipfile.ZipFile(written, "w") as archive:
        archive.writestr("main.py", main)
        for path in sorted(PACKAGE.glob("*.py")):
            archive.writestr(f"prompt_modules/{path.name}", path.read_text())
    return written.getvalue()


class Serving:
    """A daemon without its sockets. `close` it; `restart` is a close and a boot over the same state."""

    def __init__(self, state: Path) -> None:
        self._state = state
        self._runner = asyncio.Runner()
        self.kernel: Kernel = self._runner.run(boot(ServeOptions(state=state, threads=1)))

    def answers(self, main: str, *, user: str = "ada", at_once: int = 1, **arguments: Any) -> list[Any]:
        """What so many processes of one program print, as JSON each. Raises AssertionError if one does not finish."""
        return self._runner.run(self._answers(program(main), user, at_once, arguments))

    def restart(self) -> None:
        self._runner.run(self.kernel.close())
        self.kernel = self._runner.run(boot(ServeOptions(state=self._state, threads=1)))

    def close(self) -> None:
        self._runner.run(self.kernel.close())
        self._runner.close()

    async def _answers(self, data: bytes, user: str, at_once: int, arguments: dict[str, Any]) -> list[Any]:
        image = await self.kernel.images.add(user, data)
        processes = [self.kernel.spawn(user, image.digest, json.dumps(arguments)) for _ in range(at_once)]
        statuses = await asyncio.wait_for(asyncio.gather(*(process.ended() for process in processes)), PATIENCE_SECONDS)
        return [json.loads(said(process, status)) for process, status in zip(processes, statuses, strict=True)]


def said(process: Process, status: ExitStatus) -> str:
    events = process.output.read(0)[0]
    told = {kind: "".join(event.text for event in events if event.kind == kind) for kind in ("output", "error")}
    assert status.ending == "finished", (status, told["error"])
    return told["output"]
