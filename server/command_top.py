"""`cadenza top`."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import TYPE_CHECKING, Annotated

import typer

from cadenza.server.frame import Frame
from cadenza.server.invocation import Json, Server, invocation
from cadenza.server.limits import TOP_PROCESSES, TOP_PROCESSES_MOST
from cadenza.server.screen import Screen

if TYPE_CHECKING:
    import asyncio

    from cadenza.sdk.client import Client

SHORTEST_SECONDS = 0.1
ALL_LINES = 1 << 16


def top(
    context: typer.Context,
    interval: Annotated[float, typer.Option("--interval", "-n", min=SHORTEST_SECONDS,
                                            help="Seconds between two looks; rates are over them.")] = 1.0,
    once: Annotated[bool, typer.Option("--once", help="Print it once, after two looks, and end.")] = False,
    processes: Annotated[
        int, typer.Option(min=1, max=TOP_PROCESSES_MOST, help="So many of yours at most.")
    ] = TOP_PROCESSES,
    server: Server = None,
    json: Json = False,
) -> None:
    """Watch your processes, and the machine: what each waits for, pages by tier, batches, tokens a second.

    Ctrl-C ends it. Off a terminal it is printed once; with --json, one line for each look.
    """

    async def work(client: Client, screen: Screen) -> None:
        from cadenza.server.stop_signals import stop_signals

        with stop_signals() as stop:
            looks = frames(client, processes, interval, stop)
            if screen.json:
                await _lines(looks, screen, once=once)
            elif once or not sys.stdout.isatty():
                await _print(looks, client, screen)
            else:
                await _watch(looks, client)

    invocation(context, server=server, json=json).call(work)


async def frames(client: Client, processes: int, interval: float, stop: asyncio.Event) -> AsyncIterator[Frame]:
    """One at once, which has no rates yet, and one every `interval` seconds until `stop` is set."""
    import asyncio

    before = None
    while not stop.is_set():
        now = await client.top(processes)
        yield Frame(now, before)
        before = now
        with suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), interval)


async def _lines(looks: AsyncIterator[Frame], screen: Screen, *, once: bool) -> None:
    async for frame in looks:
        if frame.before is not None:
            screen.value(frame.value())
            if once:
                return


async def _print(looks: AsyncIterator[Frame], client: Client, screen: Screen) -> None:
    from cadenza.server.dashboard import drawn, plain

    facts = await client.facts()
    async for frame in looks:
        if frame.before is None:
            continue
        if sys.stdout.isatty():
            from rich.console import Console

            console = Console()
            console.print(drawn(frame, facts, console.width, ALL_LINES))
        else:
            screen.text(plain(frame, facts))
        return


async def _watch(looks: AsyncIterator[Frame], client: Client) -> None:
    from rich.live import Live

    from cadenza.server.dashboard import drawn

    facts = await client.facts()
    with Live(screen=True, auto_refresh=False) as live:
        async for frame in looks:
            live.update(drawn(frame, facts, *live.console.size), refresh=True)
