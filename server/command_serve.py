"""`cadenza serve`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cadenza.kernel.limits import PRIORITY_LEAST, PRIORITY_MOST
from cadenza.server.allowed import Allowed
from cadenza.server.command_keys import KEYS_FILE, reported
from cadenza.server.invocation import Json, invocation
from cadenza.server.options import DEFAULT_ADDRESS, MEMORY_POLICY, ListenOptions, Progress, ServeOptions, default_state
from cadenza.server.screen import Screen

if TYPE_CHECKING:
    from cadenza.kernel.kernel import Kernel
    from cadenza.server.daemon import Daemon

Boot = Callable[[ServeOptions, Progress], Awaitable["Kernel"]]


def serve(
    context: typer.Context,
    model: Annotated[str | None, typer.Argument(help="A directory, or a hub id; else the bundled model.")] = None,
    address: Annotated[str, typer.Option(metavar="HOST:PORT", help="Where to listen.")] = DEFAULT_ADDRESS,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or null.")] = "auto",
    dtype: Annotated[str, typer.Option(help="auto, float32, bfloat16 or int8.")] = "auto",
    pages: Annotated[int | None, typer.Option(min=1, help="KV pages.")] = None,
    kv_gib: Annotated[float | None, typer.Option(min=0, help="KV memory, in place of --pages.")] = None,
    host_gib: Annotated[float, typer.Option(min=0, help="Memory for KV that makes room on the device.")] = 0.25,
    disk_gib: Annotated[float, typer.Option(min=0, help="Disk for synced KV files; 0 keeps none.")] = 8.0,
    quota_gib: Annotated[float | None, typer.Option(min=0, help="KV memory of one user, at most.")] = None,
    memory_policy: Annotated[str, typer.Option(help="For KV of who waits: ours, infercept, swap…")] = MEMORY_POLICY,
    page_tokens: Annotated[int, typer.Option(min=1, help="Tokens in one page.")] = 16,
    threads: Annotated[int | None, typer.Option(min=1, help="Of a device on the CPU.")] = None,
    state: Annotated[Path | None, typer.Option(help="Images and caches [$CADENZA_STATE].")] = None,
    keys: Annotated[Path | None, typer.Option(metavar="FILE", help="Keys [keys, in the state directory].")] = None,
    tls_cert: Annotated[Path | None, typer.Option(metavar="FILE", help="Certificate chain, PEM.")] = None,
    tls_key: Annotated[Path | None, typer.Option(metavar="FILE", help="Its private key, PEM.")] = None,
    metrics_port: Annotated[int | None, typer.Option(min=0, max=65535, help="Metrics, on 127.0.0.1.")] = None,
    max_priority: Annotated[
        int, typer.Option(min=PRIORITY_LEAST, max=PRIORITY_MOST, help="The highest that users may give a process.")
    ] = 0,
    allow_host: Annotated[
        list[str] | None, typer.Option(metavar="PATTERN", help="A host that programs may talk to: *.example.org:8443.")
    ] = None,
    mcp: Annotated[
        list[str] | None, typer.Option(metavar="NAME=COMMAND|URL", help="An MCP server whose tools they may call.")
    ] = None,
    json: Json = False,
) -> None:
    """Start the daemon; it runs until SIGTERM or Ctrl-C."""
    directory = state or default_state()
    options = ServeOptions(
        model=model, device=device, dtype=dtype, pages=pages, kv_gib=kv_gib, host_gib=host_gib, disk_gib=disk_gib,
        quota_gib=quota_gib, memory_policy=memory_policy, page_tokens=page_tokens, threads=threads, state=directory,
        allowed=Allowed(tuple(allow_host or ()), tuple(mcp or ())),
    )  # fmt: skip
    listen = ListenOptions(address, keys or _keys_in(directory), tls_cert, tls_key, metrics_port, max_priority)
    invoked = invocation(context, json=json)
    with reported(invoked):
        from cadenza.server.boot import boot

        run_daemon(boot, options, listen, invoked.screen)


def run_daemon(boot: Boot, options: ServeOptions, listen: ListenOptions, screen: Screen) -> None:
    """Boots and serves until a signal comes. Raises a CadenzaError that says what is missing."""
    import asyncio
    import logging

    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    asyncio.run(_serve(boot, options, listen, screen))


async def _serve(boot: Boot, options: ServeOptions, listen: ListenOptions, screen: Screen) -> None:
    from cadenza.server.address import check_listening
    from cadenza.server.auth import Keys
    from cadenza.server.daemon import Daemon
    from cadenza.server.stop_signals import stop_signals

    check_listening(listen)  # before the model is loaded
    Keys(listen.keys)
    options.allowed.as_manifest()
    options.state.mkdir(parents=True, exist_ok=True, mode=0o700)
    with screen.progress() as progress:
        kernel = await boot(options, progress)
    try:
        with stop_signals() as asked:
            async with Daemon(kernel, listen) as daemon:
                _announce(screen, kernel, daemon, listen)
                await asked.wait()
                screen.remark("stopping; once more to stop at once")
    finally:
        await kernel.close()


def _announce(screen: Screen, kernel: Kernel, daemon: Daemon, listen: ListenOptions) -> None:
    facts = kernel.facts
    if screen.json:
        screen.value({"serving": daemon.address, "metrics": daemon.metrics_address, **asdict(facts)})
        return
    screen.line(f"model    {facts.model} ({facts.fingerprint[:12]}, context {facts.context_tokens} tokens)")
    screen.line(f"device   {facts.device}")
    screen.line(f"KV       {facts.pages} pages of {facts.page_tokens} tokens: {facts.kv_tokens} tokens")
    if daemon.metrics_address:
        screen.line(f"metrics  http://{daemon.metrics_address}/metrics")
    who = "with keys" if listen.keys else "everyone on this machine is the user 'local'"
    screen.line(f"address  {daemon.address} ({'TLS, ' if listen.tls_cert else ''}{who})")


def _keys_in(state: Path) -> Path | None:
    path = state / KEYS_FILE
    return path if path.exists() else None
