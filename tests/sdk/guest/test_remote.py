"""Hosts and granted tools, over the toy kernel: what is sent, what comes back, and that handles are closed."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

import pytest

from cadenza.sdk.guest.cadenza import Denied, http, loop, remote

T = TypeVar("T")
pytestmark = pytest.mark.usefixtures("toy")


def run(main: Coroutine[Any, Any, T]) -> T:
    return loop.new().run(main)


def test_a_request_and_its_response(toy: Any) -> None:
    async def main() -> http.Response:
        return await http.post("https://a.org/x?y=1", params={"q": "a b"}, json={"z": 1}, headers={"X-One": "1"},
                               timeout=2, expected=1, binary=True)

    response = run(main())
    assert response.text == 'POST https://a.org/x?y=1&q=a+b {"z": 1}'
    assert response.content == response.text.encode()
    assert (response.ok, response.status, response.cut) == (True, 200, False)
    assert response.headers == {"x-one": "1", "content-type": "application/json", "set-cookie": "a, b"}
    assert toy.held == {}, "the handle is closed"


def test_the_catalog_and_a_call(toy: Any) -> None:
    async def main() -> list[remote.Result]:
        return await asyncio.gather(remote.call("echo.say", city="Oslo"), remote.call("echo.fail"),
                                    remote.call_with("echo.say", {"name": 1}, timeout=1.5, expected=1))

    assert remote.catalog() == [remote.Description("echo.say", "Says it again.", {"type": "object"})]
    said, failed, timed = run(main())
    assert (said.text, said.failed) == ('{"city": "Oslo"} None', False)
    assert str(failed).startswith("error: ")
    assert timed.text == '{"name": 1} 1500000000'
    assert toy.held == {}


def test_what_is_not_granted_is_an_exception() -> None:
    with pytest.raises(Denied, match="manifest"):
        run(remote.call("mail.send"))


def test_a_call_that_is_cancelled_closes_its_handle(toy: Any) -> None:
    async def main() -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1):
                await remote.call("echo.never")

    run(main())
    assert toy.held == {}
