"""`cadenza run`."""

from __future__ import annotations

import json as json_text
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cadenza.kvfs.errors import CadenzaError
from cadenza.server.arguments import parse_arguments, parse_object
from cadenza.server.command_trace import write_timeline
from cadenza.server.conversation import converse, exit_code
from cadenza.server.invocation import PROGRAM_FAILURE, Json, Server, invocation
from cadenza.server.screen import Screen

if TYPE_CHECKING:
    from cadenza.sdk.client import Client

WORTH_A_BAR_BYTES = 4 << 20                 # of an upload


def run(
    context: typer.Context,
    file: Annotated[str, typer.Argument(help="A .py file, a directory or zip of modules, or a .wasm component.")],
    words: Annotated[
        list[str] | None, typer.Argument(metavar="[--NAME VALUE]...", help="The program's arguments, see above.")
    ] = None,
    arguments: Annotated[str, typer.Option(metavar="JSON", help="Arguments as an object; options come on top.")] = "",
    detach: Annotated[bool, typer.Option("--detach", "-d", help="Print the pid and leave it running.")] = False,
    name: Annotated[str, typer.Option(help="What to call the image.")] = "",
    priority: Annotated[int, typer.Option(help="-10 to 10, or what the operator allows; higher goes first.")] = 0,
    timeline: Annotated[Path | None, typer.Option(
        metavar="FILE", help="Write a picture of what it did and when there at the end: .svg, or a page.")] = None,
    server: Server = None,
    json: Json = False,
) -> None:
    """Upload a program unless the daemon has it, run it, and print what it says. Ends with its exit code.

    Everything after FILE is the program's: '--name value' (or '--name=value') becomes an argument, '--flag' is true;
    numbers, true, false, null and JSON objects and lists are taken as such; words, and all that follows '--', become
    the list "arguments". Lines typed here are sent to it as messages; Ctrl-C interrupts it, a second one kills it.
    """
    invoked = invocation(context, server=server, json=json)
    try:
        given = (parse_object(arguments) if arguments else {}) | parse_arguments(words or [])
    except CadenzaError as error:
        invoked.screen.error(error.errno, error.message)
        raise typer.Exit(PROGRAM_FAILURE) from None

    async def work(client: Client, screen: Screen) -> int:
        return await _run(client, screen, Path(file), given, name=name, detach=detach, priority=priority,
                          timeline=timeline)

    raise typer.Exit(invoked.call(work, failure=PROGRAM_FAILURE))


async def _run(
    client: Client, screen: Screen, file: Path, given: dict[str, Any], *, name: str, detach: bool, priority: int,
    timeline: Path | None,
) -> int:
    with screen.progress() as progress:

        def report(done: int, total: int) -> None:
            if total > WORTH_A_BAR_BYTES:
                progress("upload", done, total)

        image = await client.upload(file, name=name, reuse=True, progress=report)
    process = await client.spawn(image, given, bound=not detach, priority=priority)
    if detach:
        screen.line(str(process.pid), pid=process.pid, image=image.digest, arguments=json_text.dumps(given))
        return 0
    code = exit_code(await converse(process, screen))
    return code if timeline is None else code or await write_timeline(client, process.pid, timeline, screen)
