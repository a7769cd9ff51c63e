"""The command line. What a command needs is imported when it runs: `cadenza ps` must not wait for the model's code."""

from __future__ import annotations

from typing import Annotated

import typer

from cadenza.server import (
    command_adapters,
    command_doctor,
    command_files,
    command_images,
    command_keys,
    command_processes,
    command_run,
    command_serve,
    command_top,
    command_trace,
)
from cadenza.server.invocation import Json, Server, TlsCa, invocation

app = typer.Typer(
    name="cadenza",
    help="Cadenza, an operating system for LLM programs.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
adapters = typer.Typer(help="LoRA adapters of the served model.", no_args_is_help=True)
keys = typer.Typer(help="Keys of the daemon's users.", no_args_is_help=True)


@app.callback()
def options(
    context: typer.Context,
    server: Server = None,
    tls_ca: TlsCa = None,
    json: Json = False,
    version: Annotated[bool, typer.Option("--version", help="Say which version this is, and end.")] = False,
) -> None:
    """Options for every command; each also takes --server and --json itself. $CADENZA_KEY holds the key."""
    invocation(context, server=server, tls_ca=tls_ca, json=json)
    if version:
        from importlib import metadata

        typer.echo(metadata.version("cadenza"))
        raise typer.Exit


app.command("serve")(command_serve.serve)
# What follows FILE is the program's, even if it looks like an option of ours.
app.command(
    "run",
    context_settings={"ignore_unknown_options": True, "allow_extra_args": True, "allow_interspersed_args": False},
)(command_run.run)
app.command("upload")(command_images.upload)
app.command("images")(command_images.images)
app.command("rm")(command_images.rm)
app.command("ps")(command_processes.ps)
app.command("top")(command_top.top)
app.command("trace")(command_trace.trace)
app.command("logs")(command_processes.logs)
app.command("attach")(command_processes.attach)
app.command("kill")(command_processes.kill)
for command in (command_files.ls, command_files.stat, command_files.cat, command_files.cp, command_files.mv,
                command_files.ln, command_files.chmod, command_files.df, command_files.fsck):  # fmt: skip
    app.command(command.__name__)(command)
app.command("doctor")(command_doctor.doctor)
app.add_typer(adapters, name="adapters")
adapters.command("add")(command_adapters.add)
adapters.command("list")(command_adapters.list_adapters)
adapters.command("drop")(command_adapters.drop)
app.add_typer(keys, name="keys")
keys.command("add")(command_keys.add)
keys.command("list")(command_keys.list_users)
keys.command("remove")(command_keys.remove)


def main() -> None:
    """The entry point `cadenza`."""
    app()


if __name__ == "__main__":
    main()
