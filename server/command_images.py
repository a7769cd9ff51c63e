"""`cadenza upload`, `images`, `rm`."""

from __future__ import annotations

import re
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cadenza.server.command_files import at_home
from cadenza.server.invocation import Json, Server, invocation
from cadenza.server.screen import Screen, age, size

if TYPE_CHECKING:
    from cadenza.sdk.client import Client, Image

RM_HELP = ("An image: a digest of 8 digits or more, or a name. A KV file: a path that begins with /, ./, ../ or ~/. A "
           "process that has ended: its pid, a number of 7 digits at most.")
PATH_STARTS = ("/", "./", "../", "~/")
PID = re.compile(r"[0-9]{1,7}")             # a digest has more; an image whose name is a number has a digest
DIGEST_SHOWN = 12                           # digits; the server takes 8 or more


def upload(
    context: typer.Context,
    file: Annotated[Path, typer.Argument(help="A .py file, a directory or zip of modules, or a .wasm component.")],
    name: Annotated[str, typer.Option(help="What to call it; else the file's name without suffix.")] = "",
    kind: Annotated[str, typer.Option(help="'python' or 'component'; else the server sees for itself.")] = "",
    server: Server = None,
    json: Json = False,
) -> None:
    """Upload a program; it is checked, and named by the digest of its bytes."""

    async def work(client: Client, screen: Screen) -> None:
        with screen.progress() as progress:
            image = await client.upload(
                file, name=name, kind=kind, progress=lambda done, total: progress("upload", done, total)
            )
        screen.line(f"{image.digest[:DIGEST_SHOWN]} {image.name}", **asdict(image))

    invocation(context, server=server, json=json).call(work)


def images(context: typer.Context, server: Server = None, json: Json = False) -> None:
    """List your images."""

    async def work(client: Client, screen: Screen) -> None:
        found = await client.images()
        columns = ("DIGEST", "NAME", "KIND", "SIZE", "AGE", "ASKS FOR")
        screen.rows(columns, [_row(image) for image in found], [asdict(image) for image in found])

    invocation(context, server=server, json=json).call(work)


def rm(
    context: typer.Context,
    references: Annotated[list[str], typer.Argument(metavar="IMAGE|PATH|PID...", help=RM_HELP)],
    server: Server = None,
    json: Json = False,
) -> None:
    """Delete images (processes that run them go on), names of KV files, or what is kept of ended processes."""

    async def work(client: Client, screen: Screen) -> None:
        for reference in references:
            if reference.startswith(PATH_STARTS):
                await client.files.remove(at_home(reference))
            elif PID.fullmatch(reference):
                await (await client.process(int(reference))).forget()
            else:
                await client.delete_image(reference)
            screen.line(f"deleted {reference}", deleted=reference)

    invocation(context, server=server, json=json).call(work)


def _row(image: Image) -> tuple[str, ...]:
    seconds = (datetime.now(UTC) - image.created_at).total_seconds()
    asked = " ".join((*image.hosts, *image.tools))
    return image.digest[:DIGEST_SHOWN], image.name, image.kind, size(image.size_bytes), age(seconds), asked
