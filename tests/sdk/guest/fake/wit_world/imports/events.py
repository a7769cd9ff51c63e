"""Waiting, on the toy's clock: it jumps to what comes next."""

from dataclasses import dataclass
from enum import Enum

from wit_world.imports.types import refuse
from wit_world.toy import toy

Until = Enum("Until", "ANY ALL", start=0)


@dataclass
class Intent:
    handle: int
    tool: str
    expected_ns: int | None


def wait(handles: list[int], until: Until, timeout_ns: int | None, intents: list[Intent]) -> list[int]:
    toy.calls["wait"] = toy.calls.get("wait", 0) + 1
    end = float("inf") if timeout_ns is None else toy.now + timeout_ns
    while True:
        ready = [handle for handle in handles if toy.is_ready(handle)]
        if handles and len(ready) >= (len(handles) if until is Until.ALL else 1):
            return ready
        if toy.now >= end:
            return ready
        later = [toy.ready_at[handle] for handle in handles if toy.ready_at[handle] > toy.now]
        if min([end, *later]) == float("inf"):
            refuse("INVALID", "would wait for ever")
        toy.now = int(min([end, *later]))


def timer(delay_ns: int) -> int:
    return toy.handle("timer", toy.now + delay_ns)


def close(handle: int) -> None:
    held = toy.get(toy.held, handle)
    if isinstance(held, dict):
        toy.busy.discard(held["file"])
    del toy.held[handle]


def now() -> int:
    return toy.now


def wall_clock() -> int:
    return 1_700_000_000_000_000_000 + toy.now
