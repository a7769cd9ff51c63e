"""Compiles C where it is to run, once: the library is kept, named by the digest of source, compiler and CPU."""

from __future__ import annotations

import hashlib
import os
import platform
import shlex
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from cadenza.kernel.native.cpu import told
from cadenza.kvfs.errors import Unsupported

SOURCE = Path(__file__).with_name("kernels.c")             # includes the headers beside it
COMPILE_SECONDS = 120                    # it takes two where nobody else computes
FAULT_CHARACTERS = 400                   # of what the compiler says


def library(cache: Path, compiler: Sequence[str] = (), source: Path = SOURCE) -> Path:
    """The library in `cache`/native, compiled by `compiler`, or $CC, or cc. Blocks for seconds the first time.
    Processes that compile at once do not disturb each other. Raises Unsupported, saying why, where that fails."""
    compiler = compiler or shlex.split(os.environ.get("CC", "cc"))
    native = "-mcpu=native" if platform.machine() in ("aarch64", "arm64") else "-march=native"
    command = [*compiler, "-O3", native, "-fPIC", "-shared", "-pthread"]
    sources = [file.read_bytes() for file in sorted(source.parent.glob("*.[ch]"))]
    told = (*sources, *(text.encode() for text in (_run([*compiler, "--version"]), " ".join(command), _cpu())))
    kept = cache / "native" / f"{source.stem}-{hashlib.sha256(b'%'.join(told)).hexdigest()[:32]}.so"
    if not kept.exists():
        try:
            kept.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=kept.parent) as room:
                made = Path(room) / kept.name
                _run([*command, "-o", str(made), str(source), "-lm"])
                made.replace(kept)
        except OSError as fault:
            raise Unsupported(f"compiled kernels cannot be kept in {kept.parent}: {fault.strerror}") from None
    return kept


def _run(command: list[str]) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=COMPILE_SECONDS, errors="replace",
                              stdin=subprocess.DEVNULL)  # fmt: skip
    except (OSError, subprocess.TimeoutExpired) as fault:
        raise Unsupported(f"the compiler {command[0]!r} cannot be run ({fault}); install one, or set CC") from None
    if done.returncode:
        raise Unsupported(f"the compiler {command[0]!r} failed: {done.stderr.strip()[:FAULT_CHARACTERS]}")
    return done.stdout


def _cpu() -> str:
    """What `-march=native` may go by."""
    said = told("flags", "Features", "model name")
    return "\n".join(said[name] for name in sorted(said)) or f"{platform.machine()} {platform.processor()}"
