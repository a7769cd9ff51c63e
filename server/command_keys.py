"""`cadenza keys`: add, list, remove."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from cadenza.kvfs.errors import CadenzaError
from cadenza.server.invocation import FAILURE, Invocation, Json, invocation
from cadenza.server.options import default_state

KEYS_FILE = "keys"                          # in the state directory

KeysPath = Annotated[
    Path | None, typer.Option("--keys", metavar="FILE", help="The file of keys [keys, in the state directory].")
]
User = Annotated[str, typer.Argument(help="1 to 64 of a-z 0-9 . _ -")]


def add(context: typer.Context, user: User, keys: KeysPath = None, json: Json = False) -> None:
    """Make a key for a user and print it, this once: only its hash is kept."""
    from cadenza.server.auth import add_key

    invoked = invocation(context, json=json)
    with reported(invoked):
        path = keys or default_keys()
        key = add_key(path, user)
        invoked.screen.line(key, user=user, key=key, file=str(path))
        invoked.screen.remark(f"kept as a hash in {path}; a daemon started with these keys takes it from now on")


def list_users(context: typer.Context, keys: KeysPath = None, json: Json = False) -> None:
    """List the users and how many keys each has."""
    from cadenza.server.auth import read_keys

    invoked = invocation(context, json=json)
    with reported(invoked):
        counts = sorted(Counter(user for user, _ in read_keys(keys or default_keys())).items())
        rows = [(user, str(count)) for user, count in counts]
        invoked.screen.rows(("USER", "KEYS"), rows, [{"user": user, "keys": count} for user, count in counts])


def remove(context: typer.Context, user: User, keys: KeysPath = None, json: Json = False) -> None:
    """Remove every key of a user."""
    from cadenza.server.auth import remove_keys

    invoked = invocation(context, json=json)
    with reported(invoked):
        count = remove_keys(keys or default_keys(), user)
        invoked.screen.line(f"removed {count} of {user}", user=user, removed=count)


def default_keys() -> Path:
    return default_state() / KEYS_FILE


@contextmanager
def reported(invoked: Invocation) -> Iterator[None]:
    """Prints a CadenzaError and ends the command."""
    try:
        yield
    except CadenzaError as error:
        invoked.screen.error(error.errno, error.message)
        raise typer.Exit(FAILURE) from None
