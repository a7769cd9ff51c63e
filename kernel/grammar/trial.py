"""`Trial`: grammars are compiled in a child process first, under limits; only what it could do, the kernel does too."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from base64 import b64encode
from contextlib import suppress
from typing import Any, Final

from cadenza.kernel.grammar.vocabulary import Vocabulary
from cadenza.kernel.limits import GRAMMAR_COMPILE_BYTES, GRAMMAR_COMPILE_SECONDS, GRAMMAR_HELD_BYTES
from cadenza.kvfs.errors import Internal, Invalid, LimitExceeded

LINE_BYTES: Final = 1 << 20
REASON_CHARACTERS: Final = 500
START_SECONDS: Final = 60.0


class Trial:
    """Owns the child: started for the first grammar, and anew after one that it died of. One grammar at a time."""

    def __init__(self, vocabulary: Vocabulary, seconds: float = GRAMMAR_COMPILE_SECONDS) -> None:
        self._vocabulary, self._seconds = vocabulary, seconds
        self._child: asyncio.subprocess.Process | None = None

    async def compile(self, grammar: str) -> int:
        """The bytes that it takes when compiled, about. Raises Invalid, LimitExceeded."""
        child = self._child or await self._start()
        try:
            async with asyncio.timeout(self._seconds):
                answer = await _ask(child, grammar)
        except TimeoutError:
            await self.close()
            raise LimitExceeded(f"the grammar took over {self._seconds:g} s to compile (GRAMMAR_COMPILE_SECONDS); make "
                                "it smaller, or less ambiguous", "grammar_compile_seconds") from None
        except BaseException:
            await self.close()
            raise
        if answer is None:
            await self.close()
            raise LimitExceeded(f"the grammar took over {GRAMMAR_COMPILE_BYTES} bytes to compile "
                                "(GRAMMAR_COMPILE_BYTES), or nests too deep; make it smaller", "grammar_compile_bytes")
        if answer["refused"]:
            raise Invalid(f"not a grammar: {plain(answer['refused'])}", "source")
        if answer["held_bytes"] > GRAMMAR_HELD_BYTES:
            raise LimitExceeded(f"the grammar takes {answer['held_bytes']} bytes when compiled; at most "
                                f"{GRAMMAR_HELD_BYTES} (GRAMMAR_HELD_BYTES)", "grammar_held_bytes")
        return max(0, int(answer["held_bytes"]))

    async def close(self) -> None:
        """Ends the child. Idempotent."""
        child, self._child = self._child, None
        if child is not None:
            with suppress(ProcessLookupError):
                child.kill()
            await child.wait()

    async def _start(self) -> asyncio.subprocess.Process:
        first = await asyncio.to_thread(self._first_words)
        child = self._child = await asyncio.create_subprocess_exec(
            sys.executable, "-P", "-m", "cadenza.kernel.grammar.compile_child", stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL, limit=LINE_BYTES,
            env={"PYTHONPATH": os.pathsep.join(path for path in sys.path if path), "PATH": os.defpath})
        try:
            async with asyncio.timeout(START_SECONDS):
                ready = await _ask(child, first)
        except BaseException:
            await self.close()
            raise
        if ready is None:
            await self.close()
            raise Internal("the process that tries grammars does not start")
        return child

    def _first_words(self) -> dict[str, Any]:
        return {"tokens": [b64encode(token).decode() for token in self._vocabulary.tokens],
                "special": sorted(self._vocabulary.special), "address_bytes": GRAMMAR_COMPILE_BYTES}


async def _ask(child: asyncio.subprocess.Process, words: Any) -> dict[str, Any] | None:
    """None if it has died."""
    assert child.stdin is not None
    assert child.stdout is not None
    try:
        child.stdin.write(json.dumps(words).encode() + b"\n")
        await child.stdin.drain()
        line = await child.stdout.readline()
    except (BrokenPipeError, ConnectionResetError):
        return None
    return json.loads(line) if line.endswith(b"\n") else None


def plain(reason: str) -> str:
    """What llguidance says, for a person."""
    reason = " ".join(reason.replace("<non-verbose/>", "").split())
    return "it matches no text" if reason == "NoExtensionBias" else reason[:REASON_CHARACTERS]
