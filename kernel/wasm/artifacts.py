"""Compiled programs on disk: named by all that they depend on, loaded only if we wrote them."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import stat
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cadenza.kernel.limits import COMPILE_BYTES, COMPILE_SECONDS, COMPILE_WALL_SECONDS
from cadenza.kernel.wasm.compile_child import INVALID, MEMORY
from cadenza.kernel.wasm.imports import Provided
from cadenza.kvfs.errors import Internal, Invalid, LimitExceeded

COMPILER_THREADS: Final = 4


@dataclass(frozen=True, slots=True)
class CompileLimits:
    """What the compiling child may use; one past it the child is killed and the program refused."""

    cpu_seconds: int = COMPILE_SECONDS
    wall_seconds: float = COMPILE_WALL_SECONDS
    address_bytes: int = COMPILE_BYTES


class Artifacts:
    """A directory of ours alone (mode 0700)."""

    def __init__(self, directory: Path, abi: str, provided: Provided, limits: CompileLimits) -> None:
        """Raises Invalid if the directory is another user's, or open to others."""
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not _ours(directory):
            raise Invalid(f"the cache {directory} must belong to this user and be closed to others: chmod 700 it, or "
                          "choose another directory", "cache")
        self._directory, self._limits = directory, limits
        self._order = json.dumps({
            "abi": abi, "provided": {interface: sorted(names) for interface, names in provided.items()},
            "cpu_seconds": limits.cpu_seconds, "address_bytes": limits.address_bytes})

    def path(self, key: str) -> Path:
        return self._directory / f"{key}.cwasm"

    def has(self, key: str) -> bool:
        path = self.path(key)
        return path.exists() and _ours(path)

    def discard(self, key: str) -> None:
        self.path(key).unlink(missing_ok=True)

    async def compile(self, key: str, wasm: bytes, wall_seconds: float | None = None) -> None:
        """Makes the artifact `key` of `wasm`, in `wall_seconds` or as the limits say. The loop goes on meanwhile.
        Raises Invalid, LimitExceeded."""
        with tempfile.TemporaryDirectory(dir=self._directory, prefix="compile-") as room:
            source, artifact = Path(room, "wasm"), Path(room, "cwasm")
            await asyncio.to_thread(source.write_bytes, wasm)
            status, words = await self._run(source, artifact, wall_seconds or self._limits.wall_seconds)
            if status != 0:
                raise self._error(status, words)
            artifact.replace(self.path(key))

    async def _run(self, source: Path, artifact: Path, wall_seconds: float) -> tuple[int, str]:
        child = await asyncio.create_subprocess_exec(
            sys.executable, "-P", "-m", "cadenza.kernel.wasm.compile_child", str(source), str(artifact),
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
            env=_environment(), cwd=self._directory)
        try:
            async with asyncio.timeout(wall_seconds):
                out, err = await child.communicate(self._order.encode())
        except TimeoutError:
            raise LimitExceeded(
                f"compiling took over {wall_seconds:g} s (COMPILE_WALL_SECONDS); make the program smaller, or try "
                "again when the machine is less busy", "COMPILE_WALL_SECONDS") from None
        finally:
            if child.returncode is None:
                child.kill()
                await child.communicate()
        assert child.returncode is not None
        return child.returncode, (out or err[-2000:]).decode("utf-8", "replace").strip()

    def _error(self, status: int, words: str) -> Exception:
        limits = self._limits
        if status == INVALID:
            return Invalid(f"not a program: {words}", "image")
        if status in (-signal.SIGXCPU, -signal.SIGKILL):
            return LimitExceeded(f"compiling took over {limits.cpu_seconds} s of CPU (COMPILE_SECONDS); make the "
                                 "program smaller, or its functions", "COMPILE_SECONDS")
        if status in (MEMORY, -signal.SIGABRT) or "allocat" in words:
            return LimitExceeded(f"compiling took over {limits.address_bytes} bytes (COMPILE_BYTES); make the program "
                                 "smaller, or its functions", "COMPILE_BYTES")
        return Internal(f"the compiler ended with status {status}: {words}")


def _ours(path: Path) -> bool:
    status = path.lstat()
    return (status.st_uid == os.geteuid() and not status.st_mode & 0o022 and not stat.S_ISLNK(status.st_mode)
            and (stat.S_ISREG(status.st_mode) or not status.st_mode & 0o077))


def _environment() -> dict[str, str]:
    """Nothing of the daemon's environment, which may hold secrets. Few threads and arenas: each takes address space."""
    return {
        "PYTHONPATH": os.pathsep.join(path for path in sys.path if path), "PATH": os.defpath,
        "MALLOC_ARENA_MAX": "2", "RAYON_NUM_THREADS": str(min(COMPILER_THREADS, os.cpu_count() or 1)),
    }
