"""`cadenza ls`, `stat`, `cat`, `cp`, `mv`, `ln`, `chmod`, `df`, `fsck`; `rm` of files is in command_images.py."""

from __future__ import annotations

from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cadenza.server.command_keys import reported
from cadenza.server.invocation import Json, Server, invocation
from cadenza.server.screen import Screen, age, printable, size

if TYPE_CHECKING:
    from cadenza.sdk.client import Client, FileInfo
    from cadenza.sdk.client.files import Rights

LETTERS = {"r": "read", "a": "append"}
PATH_HELP = "A KV file; relative paths, and those that begin with ~/, begin at your home."


def at_home(path: str) -> str:
    """A path as the daemon takes it: `~` means nothing to it."""
    return "." if path == "~" else path.removeprefix("~/")


Source = Annotated[str, typer.Argument(metavar="PATH", help=PATH_HELP, parser=at_home)]
Target = Annotated[str, typer.Argument(metavar="TO", help="Its new name.", parser=at_home)]


def ls(
    context: typer.Context,
    path: Annotated[str, typer.Argument(metavar="PATH", help="A directory; else your home.", parser=at_home)] = "",
    server: Server = None,
    json: Json = False,
) -> None:
    """List KV files: what their owner (first) and others may do, tokens, size."""

    async def work(client: Client, screen: Screen) -> None:
        found = await client.files.list(path)
        columns = ("MODE", "OWNER", "TOKENS", "SIZE", "AGE", "NAME")
        screen.rows(columns, [_row(file) for file in found], [_value(file) for file in found])

    invocation(context, server=server, json=json).call(work)


def stat(context: typer.Context, path: Source, server: Server = None, json: Json = False) -> None:
    """Everything that is known of a KV file."""

    async def work(client: Client, screen: Screen) -> None:
        file = await client.files.get(path)
        known = {
            "names": " ".join(file.paths), "owner": file.owner, "mode": _mode(file),
            "grants": " ".join(f"{user}={_letters(rights)}" for user, rights in file.grants.items()) or "none",
            "tokens": f"{file.tokens} ({file.hidden} hidden)", "pages": f"{file.pages} ({size(file.size_bytes)})",
            "states": file.foreign or ("exact" if file.exact else "approximate"),
            "on disk": "as it is now" if file.durable else "no",
            "created": f"{file.created_at:%Y-%m-%d %H:%M:%S}", "modified": f"{file.modified_at:%Y-%m-%d %H:%M:%S}",
        }  # fmt: skip
        screen.line("\n".join(f"{name:9}{printable(value)}" for name, value in known.items()), **_value(file))

    invocation(context, server=server, json=json).call(work)


def cat(context: typer.Context, path: Source, server: Server = None, json: Json = False) -> None:
    """Print the tokens of a KV file as text."""

    async def work(client: Client, screen: Screen) -> None:
        async for text in client.files.read(path):
            if screen.json:
                screen.value({"text": text})
            else:
                screen.text(text)

    invocation(context, server=server, json=json).call(work)


def cp(context: typer.Context, path: Source, to: Target, server: Server = None, json: Json = False) -> None:
    """Copy a KV file: at once, whatever its length; its pages are shared until one of the two changes."""
    _give_name(context, "copy", path, to, server, json)


def mv(context: typer.Context, path: Source, to: Target, server: Server = None, json: Json = False) -> None:
    """Rename a KV file or directory; a file that was called so loses that name."""
    _give_name(context, "move", path, to, server, json)


def ln(context: typer.Context, path: Source, to: Target, server: Server = None, json: Json = False) -> None:
    """Give a KV file one name more."""
    _give_name(context, "link", path, to, server, json)


def chmod(
    context: typer.Context,
    mode: Annotated[str, typer.Argument(help="WHO=RIGHTS, with commas: o=r,bob=ra. WHO: u (you), o (others) or a user. "
                                             "RIGHTS: r (read), a (append), or nothing.")],
    paths: Annotated[list[str], typer.Argument(metavar="PATH...", parser=at_home)],
    server: Server = None,
    json: Json = False,
) -> None:
    """Say who may read KV files, or append to them."""
    with reported(invocation(context, server=server, json=json)):
        rights = parse_mode(mode)

    async def work(client: Client, screen: Screen) -> None:
        given = dict(rights)
        mine, others = given.pop("u", None), given.pop("o", None)
        for path in paths:
            file = await client.files.change_mode(path, mine, others, given)
            screen.line(f"{_mode(file)} {path}", **_value(file))

    invocation(context, server=server, json=json).call(work)


def df(context: typer.Context, server: Server = None, json: Json = False) -> None:
    """What you have of KV memory, and where all of it lies."""

    async def work(client: Client, screen: Screen) -> None:
        usage = await client.files.usage()
        limit = size(usage.bytes_limit) if usage.bytes_limit else "all there is"
        rows = [("you", f"{usage.files} files", size(usage.bytes), limit)]
        rows += [(t.name, f"{t.used_pages} pages", size(t.used_pages * t.page_bytes), size(t.pages * t.page_bytes))
                 for t in usage.tiers]
        screen.rows(("WHERE", "HOLDS", "USED", "OF"), rows, [asdict(usage)])

    invocation(context, server=server, json=json).call(work)


def fsck(
    context: typer.Context,
    state: Annotated[Path | None, typer.Option(help="The daemon's directory [$CADENZA_STATE].")] = None,
    repair: Annotated[bool, typer.Option("--repair", help="Keep what is whole; the old journal stays beside.")] = False,
    json: Json = False,
) -> None:
    """Check KV files on disk, every page of them; the daemon must not run."""
    invoked = invocation(context, json=json)
    screen = invoked.screen
    with reported(invoked):
        from cadenza.kvfs.fsck import check
        from cadenza.server.options import default_state

        with screen.progress() as progress:
            report = check((state or default_state()) / "kv", repair=repair,
                           progress=lambda done, total: progress("read pages", done, total))
    told = [*report.notes, *report.problems]
    told += [f"lost{'' if repair else ', if repaired'}: {lost}" for lost in report.lost]
    summary = f"{report.files} files, {report.pages} pages: {'clean' if report.clean else 'damaged'}"
    screen.line("\n".join([*told, summary + (", repaired" if report.repaired else "")]), **asdict(report))
    if not report.clean and not report.repaired:
        raise typer.Exit(1)


def parse_mode(mode: str) -> dict[str, Rights]:
    """`o=r,bob=ra` by user. Raises Invalid."""
    from cadenza.kvfs.errors import Invalid

    found: dict[str, Rights] = {}
    for piece in mode.split(","):
        who, equals, letters = piece.partition("=")
        if not (who and equals) or set(letters) - set(LETTERS):
            raise Invalid(f"{piece!r} is no mode: write WHO=RIGHTS, as o=r or bob=ra, with r (read) and a (append)",
                          "mode")
        found[who] = frozenset(LETTERS[letter] for letter in letters)
    return found


def _give_name(context: typer.Context, how: str, path: str, to: str, server: str | None, json: bool) -> None:
    async def work(client: Client, screen: Screen) -> None:
        await getattr(client.files, how)(path, to)
        screen.line(f"{path} -> {to}", path=path, to=to)

    invocation(context, server=server, json=json).call(work)


def _row(file: FileInfo) -> tuple[str, ...]:
    if file.directory:
        return "d", "", "", "", "", f"{file.path}/"
    seconds = (datetime.now(UTC) - file.modified_at).total_seconds()
    return _mode(file), file.owner, str(file.tokens), size(file.size_bytes), age(seconds), file.path


def _mode(file: FileInfo) -> str:
    """`ra r-`, the owner's and others', and + if there are grants, ! if it cannot be read here."""
    columns = ["".join(letter if name in rights else "-" for letter, name in LETTERS.items())
               for rights in (file.mine, file.others)]
    return " ".join(columns) + ("+" if file.grants else "") + ("!" if file.foreign else "")


def _letters(rights: Rights) -> str:
    return "".join(letter for letter, name in LETTERS.items() if name in rights)


def _value(file: FileInfo) -> dict[str, Any]:
    value = asdict(file)
    for name in ("mine", "others"):
        value[name] = sorted(value[name])
    value["grants"] = {user: sorted(rights) for user, rights in file.grants.items()}
    return value
