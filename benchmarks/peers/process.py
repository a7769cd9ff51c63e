"""A peer seen from the benchmark: its process, stopped while others are measured."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
LINE_BYTES = 1 << 20
SAID_BYTES = 600                      # of what it printed last, when it died


class PeerFault(Exception):
    """The peer died, or never came up; the text says how."""


class PeerProcess:
    """Answers as the `Peer` of serving.py does. Made by `running`."""

    def __init__(self, process: asyncio.subprocess.Process, log: Path) -> None:
        self._process, self._log = process, log
        self.facts: dict[str, str] = {}

    @property
    def pid(self) -> int:
        return self._process.pid

    async def greedy(self, prompts: list[list[int]], tokens: int) -> list[list[int]]:
        said: list[list[int]] = await self._call("greedy", prompts, tokens)
        return said

    async def prefill(self, tokens: int, seed: int) -> float:
        return float(await self._call("prefill", tokens, seed))

    async def grow(self, sequences: int, context: int) -> None:
        await self._call("grow", sequences, context)

    async def decode(self, steps: int) -> float:
        return float(await self._call("decode", steps))

    async def _call(self, call: str, *arguments: Any) -> Any:
        """The process group runs only until it has answered: engines may spin while they wait."""
        self._signal(signal.SIGCONT)
        try:
            return await self.say({"call": call, "arguments": arguments})
        finally:
            self.pause()

    def pause(self) -> None:
        self._signal(signal.SIGSTOP)

    async def say(self, request: Any) -> Any:
        """Raises PeerFault."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with suppress(BrokenPipeError, ConnectionResetError):
            self._process.stdin.write(json.dumps(request).encode() + b"\n")
            await self._process.stdin.drain()
        answer = await self._process.stdout.readline()
        if not answer:
            raise PeerFault(f"{ending(await self._process.wait())}: {last_line(self._log.read_text(errors='replace'))}")
        return json.loads(answer)

    def _signal(self, number: signal.Signals) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, number)

    async def end(self) -> None:
        """Idempotent."""
        self._signal(signal.SIGKILL)
        await self._process.wait()


def ending(code: int) -> str:
    """Of a process that ended by itself."""
    if code == -signal.SIGILL:
        return "does not run on this CPU (SIGILL)"
    return f"died of {signal.Signals(-code).name}" if code < 0 else f"ended with {code}"


def last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1][:SAID_BYTES] if lines else "it said nothing"


@asynccontextmanager
async def running(python: Path, module: str, settings: dict[str, Any], log: Path) -> AsyncIterator[PeerProcess]:
    """The peer of `module`, its model loaded. What it prints goes to the file `log`. Raises PeerFault."""
    with log.open("wb") as said:
        process = await asyncio.create_subprocess_exec(
            str(python), "-m", module, stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE, stderr=said, cwd=ROOT, start_new_session=True, limit=LINE_BYTES)
    peer = PeerProcess(process, log)
    try:
        peer.facts = await peer.say(settings)
        peer.pause()
        yield peer
    finally:
        await peer.end()
