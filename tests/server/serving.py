"""A daemon on a free loopback port around the fake kernel, and a client of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar, cast

from cadenza.sdk.client import Client
from cadenza.server.daemon import Daemon
from cadenza.server.options import ListenOptions

from .fake_kernel import FakeKernel

if TYPE_CHECKING:
    from cadenza.kernel.kernel import Kernel

PROGRAM = b"async def main(args):\n    pass\n"
LOOPBACK = ListenOptions("127.0.0.1:0")
SECONDS = 30.0                              # generous: nothing takes that long unless it hangs
T = TypeVar("T")


@dataclass
class Served:
    kernel: FakeKernel
    daemon: Daemon
    client: Client


def run(test: Coroutine[Any, Any, T]) -> T:
    """Runs a test on an event loop of its own, for SECONDS at most."""

    async def bounded() -> T:
        async with asyncio.timeout(SECONDS):
            return await test

    return asyncio.run(bounded())


@asynccontextmanager
async def served(
    options: ListenOptions = LOOPBACK, *, key: str | None = None, bound_seconds: float = 5.0
) -> AsyncIterator[Served]:
    kernel = FakeKernel()
    async with (
        Daemon(cast("Kernel", kernel), options, bound_seconds=bound_seconds) as daemon,
        Client(daemon.address, key=key) as client,
    ):
        yield Served(kernel, daemon, client)
