"""Time that jumps."""

from __future__ import annotations

import asyncio
import time

import pytest

from cadenza.kernel.virtual_clock import simulate


async def _sleepers() -> list[tuple[float, str]]:
    seen: list[tuple[float, str]] = []

    async def sleep(seconds: float, name: str) -> None:
        await asyncio.sleep(seconds)
        seen.append((asyncio.get_running_loop().time(), name))

    await asyncio.gather(sleep(3600.0, "hour"), sleep(0.25, "blink"), sleep(60.0, "minute"))
    return seen


def test_an_hour_takes_no_time_and_keeps_its_order() -> None:
    started = time.monotonic()
    seen = simulate(_sleepers())
    assert [name for _, name in seen] == ["blink", "minute", "hour"]
    assert [when for when, _ in seen] == pytest.approx([0.25, 60.0, 3600.0])
    assert time.monotonic() - started < 60


def test_each_simulation_begins_at_nothing() -> None:
    assert simulate(_sleepers()) == simulate(_sleepers())


def test_waiting_for_nothing_is_an_error_and_not_a_hang() -> None:
    async def forever() -> None:
        await asyncio.get_running_loop().create_future()

    with pytest.raises(RuntimeError, match="nothing is going to happen"):
        simulate(forever())


def test_no_time_passes_while_a_thread_computes() -> None:
    async def main() -> tuple[list[str], float, float]:
        loop, seen = asyncio.get_running_loop(), list[str]()
        loop.call_later(1.0, seen.append, "timer")
        await asyncio.to_thread(time.sleep, 0.05)
        seen.append("thread")
        answered = loop.time()
        await asyncio.sleep(2.0)
        return seen, answered, loop.time()

    assert simulate(main()) == (["thread", "timer"], 0.0, 2.0)
