"""`cadenza trace`."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cadenza.server.command_processes import Pid
from cadenza.server.invocation import FAILURE, Json, Server, invocation
from cadenza.server.screen import Screen

if TYPE_CHECKING:
    import asyncio

    from cadenza.sdk.client import Client, Trace

PLAIN_COLUMNS = 100                         # off a terminal
SHORTEST_SECONDS = 0.1


def trace(
    context: typer.Context,
    pid: Pid,
    svg: Annotated[Path | None, typer.Option(metavar="FILE", help="Write a picture there.")] = None,
    html: Annotated[Path | None, typer.Option(metavar="FILE", help="Write a page with the picture there.")] = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Look again and again, until it ends.")] = False,
    interval: Annotated[float, typer.Option("--interval", "-n", min=SHORTEST_SECONDS,
                                            help="Seconds between two looks.")] = 1.0,
    server: Server = None,
    json: Json = False,
) -> None:
    """Draw what a process has done and when, alive or not: tokens, calls, interrupts, traps, waits.

    With --json the records, a line for each look.
    """

    async def work(client: Client, screen: Screen) -> int:
        from cadenza.server.stop_signals import stop_signals

        with stop_signals() as stop:
            looks = _looks(client, pid, interval, stop) if follow else _once(client, pid)
            if screen.json:
                return await _lines(looks, screen, svg, html)
            if follow and sys.stdout.isatty():
                return _files(await _watch(looks), screen, svg, html)
            last = [seen async for seen in looks][-1]
            if svg is None and html is None:
                _print(last, screen)
            return _files(last, screen, svg, html)

    code = invocation(context, server=server, json=json).call(work)
    if code:
        raise typer.Exit(code)


async def _once(client: Client, pid: int) -> AsyncIterator[Trace]:
    yield await client.trace(pid)


async def _looks(client: Client, pid: int, interval: float, stop: asyncio.Event) -> AsyncIterator[Trace]:
    """One at once and one every `interval` seconds, the last when it has ended or `stop` is set."""
    import asyncio

    while True:
        seen = await client.trace(pid)
        yield seen
        if seen.process.exit is not None or stop.is_set():
            return
        with suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), interval)


async def _lines(looks: AsyncIterator[Trace], screen: Screen, svg: Path | None, html: Path | None) -> int:
    code = 0
    async for seen in looks:
        screen.value(_value(seen))
        code = _files(seen, screen, svg, html)
    return code


def _value(seen: Trace) -> dict[str, Any]:
    return {**asdict(seen.process), "seconds": seen.seconds, "lost": seen.lost,
            "records": [asdict(record) for record in seen.records]}  # fmt: skip


def _print(seen: Trace, screen: Screen) -> None:
    from cadenza.server.chart import drawn, plain
    from cadenza.server.timeline import timeline_of

    if sys.stdout.isatty():
        from rich.console import Console

        console = Console()
        console.print(drawn(timeline_of(seen), console.width))
    else:
        screen.text(plain(timeline_of(seen), PLAIN_COLUMNS))


async def _watch(looks: AsyncIterator[Trace]) -> Trace:
    """Draws each in place of the one before, and leaves the last. Answers it."""
    from rich.live import Live

    from cadenza.server.chart import drawn
    from cadenza.server.timeline import timeline_of

    with Live(auto_refresh=False) as live:
        async for seen in looks:
            live.update(drawn(timeline_of(seen), live.console.width), refresh=True)
    return seen


async def write_timeline(client: Client, pid: int, path: Path, screen: Screen) -> int:
    """As a picture, or as a page if it isn't called .svg. Answers the exit code."""
    is_picture = path.suffix == ".svg"
    return _files(await client.trace(pid), screen, path if is_picture else None, None if is_picture else path)


def _files(seen: Trace, screen: Screen, svg: Path | None, html: Path | None) -> int:
    """The pictures that are wanted. Answers the exit code."""
    from cadenza.server import picture
    from cadenza.server.timeline import timeline_of

    for path, draw in ((svg, picture.svg), (html, picture.html)):
        if path is None:
            continue
        try:
            path.write_text(draw(timeline_of(seen)), encoding="utf-8")
        except OSError as error:
            screen.error("invalid", f"{path} cannot be written: {error.strerror}", field="file")
            return FAILURE
        screen.remark(f"written to {path}")
    return 0
