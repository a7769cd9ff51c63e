"""One invocation of the command line: which server, with which key, and how to print."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from cadenza.server.screen import Screen

if TYPE_CHECKING:
    from cadenza.sdk.client import Client, ClientError

T = TypeVar("T")
FAILURE = 1                                 # a command that could not do its work
PROGRAM_FAILURE = 125                       # the same of `run` and `attach`, whose other codes are the program's

Json = Annotated[bool, typer.Option("--json", help="Print JSON, one value a line.")]
Server = Annotated[
    str | None, typer.Option("--server", metavar="HOST:PORT", help="The daemon [$CADENZA_SERVER, or 127.0.0.1:50761].")
]
TlsCa = Annotated[
    str | None, typer.Option("--tls-ca", metavar="FILE", help="Trust these authorities; 'system': the system's.")
]


@dataclass(slots=True)
class Invocation:
    """Options of the whole line; a command's own --server and --json come on top."""

    server: str | None = None
    tls_ca: str | None = None
    json: bool = False

    @property
    def screen(self) -> Screen:
        return Screen(json=self.json)

    def call(self, work: Callable[[Client, Screen], Coroutine[Any, Any, T]], *, failure: int = FAILURE) -> T:
        """Does `work` with a client. A ClientError is printed, and ends the command with code `failure`."""
        from cadenza.sdk.client import ClientError

        try:
            return _run(self._connected(work))
        except ClientError as error:
            self._say(error)
            raise typer.Exit(failure) from None
        except KeyboardInterrupt:
            raise typer.Exit(130) from None

    async def _connected(self, work: Callable[[Client, Screen], Awaitable[T]]) -> T:
        from cadenza.sdk.client import Client

        tls = True if self.tls_ca == "system" else self.tls_ca
        async with Client(self.target(), key=os.environ.get("CADENZA_KEY"), tls=tls) as client:
            return await work(client, self.screen)

    def target(self) -> str:
        from cadenza.sdk.client import DEFAULT_TARGET

        return self.server or os.environ.get("CADENZA_SERVER") or DEFAULT_TARGET

    def _say(self, error: ClientError) -> None:
        message = error.message
        if error.errno == "unavailable":
            message = f"no daemon answers at {self.target()}; start one with 'cadenza serve' ({message})"
        self.screen.error(error.errno, message, field=error.field, limit=error.limit)


def invocation(
    context: typer.Context, *, server: str | None = None, tls_ca: str | None = None, json: bool = False
) -> Invocation:
    """The line's options, with those of a command on top."""
    found = context.ensure_object(Invocation)
    found.server = server or found.server
    found.tls_ca = tls_ca or found.tls_ca
    found.json = json or found.json
    return found


def _run(work: Coroutine[Any, Any, T]) -> T:
    import asyncio

    return asyncio.run(work)
