"""`cadenza ps`, `logs`, `attach`, `kill`."""

from __future__ import annotations

from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cadenza.server.conversation import converse, exit_code, show
from cadenza.server.invocation import PROGRAM_FAILURE, Json, Server, invocation
from cadenza.server.screen import Screen, age, shortened

if TYPE_CHECKING:
    from cadenza.sdk.client import Client, Process

ARGUMENTS_SHOWN = 60                        # characters
Pid = Annotated[int, typer.Argument(help="The process, as 'cadenza ps' shows it.")]


def ps(
    context: typer.Context,
    everything: Annotated[bool, typer.Option("--all", "-a", help="Those that have ended, too.")] = False,
    server: Server = None,
    json: Json = False,
) -> None:
    """List your processes."""

    async def work(client: Client, screen: Screen) -> None:
        found = [process for process in await client.processes() if everything or process.exit is None]
        columns = ("PID", "IMAGE", "STATE", "AGE", "PRIO", "ARGUMENTS")
        screen.rows(columns, [_row(process) for process in found], [_value(process) for process in found])

    invocation(context, server=server, json=json).call(work)


def logs(
    context: typer.Context,
    pid: Pid,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until it ends.")] = False,
    after: Annotated[int, typer.Option(min=0, help="Only events above this sequence.")] = 0,
    server: Server = None,
    json: Json = False,
) -> None:
    """Print what a process has said, alive or not."""

    async def work(client: Client, screen: Screen) -> None:
        process = await client.process(pid)
        async for event in process.logs(after=after, follow=follow):
            show(screen, event)

    invocation(context, server=server, json=json).call(work)


def attach(
    context: typer.Context,
    pid: Pid,
    after: Annotated[int, typer.Option(min=0, help="Only events above this sequence.")] = 0,
    server: Server = None,
    json: Json = False,
) -> None:
    """Attach to a process: its output comes here, lines typed here go to it. Ends with its exit code.

    Ctrl-C interrupts it, a second one kills it.
    """

    async def work(client: Client, screen: Screen) -> int:
        return exit_code(await converse(await client.process(pid), screen, after=after))

    code = invocation(context, server=server, json=json).call(work, failure=PROGRAM_FAILURE)
    raise typer.Exit(code)


def kill(
    context: typer.Context,
    pids: Annotated[list[int], typer.Argument(metavar="PID...")],
    signal: Annotated[str, typer.Option("--signal", "-s", help="terminate, kill, interrupt or user.")] = "terminate",
    server: Server = None,
    json: Json = False,
) -> None:
    """Send processes a signal; unless told, the one that asks them to end."""

    async def work(client: Client, screen: Screen) -> None:
        for pid in pids:
            await (await client.process(pid)).signal(signal)
            screen.line(f"{signal} {pid}", pid=pid, signal=signal)

    invocation(context, server=server, json=json).call(work)


def _row(process: Process) -> tuple[str, ...]:
    known = process.snapshot
    seconds = (datetime.now(UTC) - known.started_at).total_seconds()
    state = f"{known.exit.ending} ({known.exit.code})" if known.exit else known.state
    image = known.image_name or known.image_digest[:12]
    arguments = shortened(known.arguments, ARGUMENTS_SHOWN)
    return str(known.pid), image, state, age(seconds), str(known.priority), arguments


def _value(process: Process) -> dict[str, Any]:
    return asdict(process.snapshot)
