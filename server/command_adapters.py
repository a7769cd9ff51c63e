"""`cadenza adapters`: add, list, drop."""

from __future__ import annotations

from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cadenza.server.invocation import Json, Server, invocation
from cadenza.server.screen import Screen, age, size

if TYPE_CHECKING:
    from cadenza.sdk.client import Adapter, Client

Name = Annotated[str, typer.Argument(help="What programs call it.")]


def add(
    context: typer.Context,
    name: Name,
    directory: Annotated[Path, typer.Argument(help="As `peft` saves it: adapter_config.json and the weights beside.")],
    server: Server = None,
    json: Json = False,
) -> None:
    """Add a LoRA adapter of the served model; your programs name it where they ask the model."""

    async def work(client: Client, screen: Screen) -> None:
        with screen.progress() as progress:
            adapter = await client.adapters.add(
                name, directory, progress=lambda done, total: progress("upload", done, total)
            )
        screen.line(f"{adapter.name} rank {adapter.rank}", **asdict(adapter))

    invocation(context, server=server, json=json).call(work)


def list_adapters(context: typer.Context, server: Server = None, json: Json = False) -> None:
    """List your adapters."""

    async def work(client: Client, screen: Screen) -> None:
        found = await client.adapters.list()
        columns = ("NAME", "RANK", "TARGETS", "SIZE", "AGE")
        screen.rows(columns, [_row(adapter) for adapter in found], [asdict(adapter) for adapter in found])

    invocation(context, server=server, json=json).call(work)


def drop(context: typer.Context, name: Name, server: Server = None, json: Json = False) -> None:
    """Drop an adapter. One in use is refused: by passes, or by KV files that were computed under it."""

    async def work(client: Client, screen: Screen) -> None:
        await client.adapters.drop(name)
        screen.line(f"dropped {name}", dropped=name)

    invocation(context, server=server, json=json).call(work)


def _row(adapter: Adapter) -> tuple[str, ...]:
    seconds = (datetime.now(UTC) - adapter.created_at).total_seconds()
    targets = " ".join(target.removesuffix("_proj") for target in adapter.targets)
    return adapter.name, str(adapter.rank), targets, size(adapter.size_bytes), age(seconds)
