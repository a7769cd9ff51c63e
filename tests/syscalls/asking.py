"""What programs do again and again: ask, wait, take, close."""

from __future__ import annotations

from typing import Any

from cadenza.kernel.process import Process

from .desk import Desk, a_pass, a_sampler

CREATE = {"read", "append", "create"}


def sample(row: int, **sampler: Any) -> dict[str, Any]:
    return {"row": row, "sampler": a_sampler(**sampler)}


def probe(row: int, name: str, value: Any = None) -> dict[str, Any]:
    return {"row": row, "probe": (name, value)}


async def forward(desk: Desk, process: Process, request: dict[str, Any]) -> Any:
    handle = desk.ask(process, "inference.forward", request)
    await desk.wait(process, handle)
    done = desk.ask(process, "inference.take-pass", handle)
    desk.ask(process, "events.close", handle)
    return done


async def decode(desk: Desk, process: Process, request: dict[str, Any]) -> tuple[list[int], str]:
    """Everything that a run says, and how it finished."""
    handle = desk.ask(process, "inference.decode", request)
    said: list[int] = []
    finish = "running"
    while finish == "running":
        await desk.wait(process, handle)
        progress = desk.ask(process, "inference.take-tokens", handle)
        said, finish = said + progress.tokens, progress.finish
    desk.ask(process, "events.close", handle)
    return said, finish


async def filled(desk: Desk, process: Process, tokens: int, path: str = "") -> int:
    """A descriptor of a new file with so many tokens."""
    file: int = desk.ask(process, "kv.open", path, CREATE) if path else desk.ask(process, "kv.create")
    handle = desk.ask(process, "inference.forward", a_pass(file, [1] * tokens))
    await desk.wait(process, handle)
    desk.ask(process, "inference.take-pass", handle)
    desk.ask(process, "events.close", handle)
    return file
