"""Priorities over a real connection: what may be asked for, and what the operator allows."""

from __future__ import annotations

from dataclasses import replace

import pytest

from cadenza.kernel.limits import PRIORITY_LEAST, PRIORITY_MOST
from cadenza.sdk.client import Invalid, LimitExceeded

from .serving import LOOPBACK, PROGRAM, run, served


def test_priorities_are_bounded_by_the_operator() -> None:
    async def test() -> None:
        async with served(replace(LOOPBACK, max_priority=3)) as server:
            image = await server.client.upload(PROGRAM)
            for priority in (PRIORITY_LEAST, 0, 3):
                process = await server.client.spawn(image, priority=priority)
                assert (process.snapshot.priority, server.kernel.table[process.pid].priority) == (priority, priority)
            with pytest.raises(LimitExceeded, match="3 at most") as over:
                await server.client.spawn(image, priority=4)
            assert over.value.limit == "priority"
            for wrong in (PRIORITY_LEAST - 1, PRIORITY_MOST + 1):
                with pytest.raises(Invalid) as caught:
                    await server.client.spawn(image, priority=wrong)
                assert caught.value.field == "priority"
            assert len(server.kernel.table) == 3

    run(test())


def test_unless_the_operator_says_more_nobody_goes_before_others() -> None:
    async def test() -> None:
        async with served() as server:
            image = await server.client.upload(PROGRAM)
            with pytest.raises(LimitExceeded, match="0 at most"):
                await server.client.spawn(image, priority=1)
            assert (await server.client.spawn(image, priority=-1)).snapshot.priority == -1

    run(test())
