"""What every benchmark needs: a kernel over a device of its choice, and one JSON object as the last line."""

from __future__ import annotations

import argparse
import asyncio
import json
import tempfile
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from cadenza.kernel.device.link import DeviceLink
from cadenza.kernel.device.local_link import LocalLink
from cadenza.kernel.device.null_device import NullDevice
from cadenza.kernel.kernel import Kernel
from cadenza.kernel.language import Language
from cadenza.kernel.model.facts import ModelFacts
from cadenza.server.boot import Assembly, assemble

Figures = dict[str, Any]


def wordless(link: DeviceLink) -> Language:
    """Facts of a model that has no tokenizer: programs give it tokens."""
    facts = link.facts
    return Language(ModelFacts("wordless", "0" * 64, facts.vocabulary_size, facts.context_tokens, (), None), None, None)


@asynccontextmanager
async def kernel_over(link: DeviceLink, **assembly: Any) -> AsyncIterator[Kernel]:
    """A kernel with nothing uploaded; closed afterwards, its pages recounted."""
    with tempfile.TemporaryDirectory(prefix="cadenza-bench-") as state:
        kernel = await assemble(link, wordless(link), Assembly(Path(state), **assembly))
        try:
            yield kernel
            kernel.recount()
        finally:
            await kernel.close()


def null_link(**device: Any) -> LocalLink:
    return LocalLink(NullDevice(**device))


def run(description: str, measure: Callable[[bool], Coroutine[Any, Any, Figures]]) -> None:
    """The command line of a benchmark: `--quick`, progress as plain lines, the figures as the last line."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--quick", action="store_true", help="under 50 seconds on two cores")
    quick = parser.parse_args().quick
    figures = asyncio.run(measure(quick))
    print(json.dumps({key: round(value, 4) if isinstance(value, float) else value for key, value in figures.items()}))
