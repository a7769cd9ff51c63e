"""The whole kernel under a virtual clock, over the speaking device; and the one program that all agents run in."""

from __future__ import annotations

import asyncio
import io
import json
import tempfile
import zipfile
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

from benchmarks.calls.speaker import Speaker
from benchmarks.calls.teachers import MANNERS, ORDERS, Script
from benchmarks.calls.words import TEMPLATE, Words
from cadenza.kernel.device.local_link import LocalLink
from cadenza.kernel.kernel import Kernel
from cadenza.kernel.limits import RUN_AHEAD_STEPS
from cadenza.kernel.virtual_clock import simulate
from cadenza.server.boot import Assembly, assemble

LIBRARY = Path(__file__).resolve().parents[2] / "inferlets" / "async_calls"
PROGRAM = Path(__file__).with_name("program.py")
USER = "bench"


def upload() -> bytes:
    """The program, and the library beside it."""
    written = io.BytesIO()
    with zipfile.ZipFile(written, "w") as archive:
        archive.writestr("main.py", PROGRAM.read_text())
        for path in sorted(LIBRARY.glob("*.py")):
            archive.writestr(f"async_calls/{path.name}", path.read_text())
    return written.getvalue()
