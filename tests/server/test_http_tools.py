"""HTTP for programs, over real sockets of loopback: where it may lead, what comes back, what is refused."""

from __future__ import annotations

import asyncio
import os
import ssl
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from cadenza.kernel.http_request import Header, HttpRequest
from cadenza.kernel.limits import HTTP_BODY_BYTES, HTTP_HEADERS
from cadenza.kernel.manifest import Manifest
from cadenza.kvfs.errors import Closed, Denied, LimitExceeded, NotFound
from cadenza.server.http_tools import HttpTools

from .serving import run

OK = b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: 5\r\n\r\nhello"


class Site:
    """Answers every request with the same bytes, or with silence; remembers what it was asked."""

    def __init__(self, answer: bytes | None) -> None:
        self.answer = answer
        self.asked: list[bytes] = []
        self.open = 0
        self.port = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.open += 1
        try:
            self.asked.append(await reader.readuntil(b"\r\n\r\n"))
            if self.answer is None:
                await reader.read()
            else:
                writer.write(self.answer)
                await writer.drain()
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            self.open -= 1
            writer.close()


@asynccontextmanager
async def site(answer: bytes | None = OK, tls: ssl.SSLContext | None = None) -> AsyncIterator[Site]:
    served = Site(answer)
    server = await asyncio.start_server(served.serve, "127.0.0.1", 0, ssl=tls)
    served.port = server.sockets[0].getsockname()[1]
    try:
        yield served
    finally:
        server.close()


class Names:
    """A resolver: each name's addresses, one list a question; the last is kept."""

    def __init__(self, **addresses: Sequence[Sequence[str]]) -> None:
        self._addresses = {name.replace("_", "."): list(lists) for name, lists in addresses.items()}
        self.asked = 0

    async def __call__(self, name: str, port: int) -> Sequence[str]:
        self.asked += 1
        lists = self._addresses.get(name)
        if lists is None:
            raise OSError("Name or service not known")
        return lists.pop(0) if len(lists) > 1 else lists[0]


def tools(*hosts: str, names: Names | None = None, tls: ssl.SSLContext | None = None) -> HttpTools:
    return HttpTools(Manifest(hosts), resolve=names, tls=tls)


def get(url: str, *headers: tuple[str, str], method: str = "GET", body: str = "") -> HttpRequest:
    return HttpRequest.parse(method, url, [Header(*each) for each in headers], body)


def test_a_request_goes_out_as_it_was_asked_and_its_response_comes_back() -> None:
    async def test() -> None:
        async with site() as served:
            host = f"127.0.0.1:{served.port}"
            asked = get(f"http://{host}/a?b=c", ("X-One", "1"), method="POST", body="say é")
            response = await tools(host).request(asked)
            assert (response.status, response.text, response.cut) == (200, "hello", False)
            assert ("content-type", "text/plain") in response.headers
            lines = served.asked[0].decode().split("\r\n")
            assert lines[0] == "POST /a?b=c HTTP/1.1"
            assert {f"host: {host}", "x-one: 1", "user-agent: cadenza", "Content-Length: 6"} <= set(lines)
            assert not [line for line in lines if line.lower().startswith(("accept-encoding", "cookie", "connection"))]
    run(test())


# --- where it may lead ---

@pytest.mark.parametrize("address", ["127.0.0.1", "10.0.0.1", "169.254.169.254", "::1", "::ffff:127.0.0.1", "0.0.0.0",
                                     "fe80::1%lo", "64:ff9b::7f00:1", "224.0.0.1"])
def test_a_name_that_leads_inside_is_refused(address: str) -> None:
    async def test() -> None:
        http = tools("*:81", names=Names(inside_org=[[address]]))
        with pytest.raises(Denied, match=r"no public address.*--allow-host"):
            await http.request(get("http://inside.org:81/"))
    run(test())


@pytest.mark.parametrize("url", ["http://127.0.0.1:{}/", "http://[::ffff:127.0.0.1]:{}/", "http://2130706433:{}/",
                                 "http://0x7f000001:{}/", "http://127.1:{}/", "http://localhost:{}/"])
def test_no_spelling_of_an_address_leads_inside(url: str) -> None:
    async def test() -> None:
        async with site() as served:
            with pytest.raises((Denied, NotFound)):
                await tools(f"*:{served.port}").request(get(url.format(served.port)))
            assert not served.asked
    run(test())


def test_an_address_that_the_operator_names_is_allowed_at_that_port_only() -> None:
    async def test() -> None:
        async with site() as served, site() as other:
            names = Names(inside_org=[["127.0.0.1"]])
            http = tools("*", f"*:{other.port}", f"127.0.0.1:{served.port}", f"inside.org:{served.port}", names=names)
            assert (await http.request(get(f"http://inside.org:{served.port}/"))).status == 200
            with pytest.raises(Denied):
                await http.request(get(f"http://inside.org:{other.port}/"))
            assert not other.asked
    run(test())


def test_a_name_is_resolved_once_so_that_a_second_answer_changes_nothing() -> None:
    async def test() -> None:
        async with site() as served, site() as target:
            names = Names(rebound_org=[["127.0.0.1"], ["127.0.0.2"]])
            http = tools(f"127.0.0.1:{served.port}", f"rebound.org:{served.port}", names=names)
            response = await http.request(get(f"http://rebound.org:{served.port}/"))
            assert (response.status, names.asked) == (200, 1)
            assert f"host: rebound.org:{served.port}".encode() in served.asked[0]
            with pytest.raises(Denied, match=r"127\.0\.0\.2"):
                await http.request(get(f"http://rebound.org:{served.port}/"))
            assert not target.asked
    run(test())


def test_of_several_addresses_only_those_that_are_allowed_are_tried() -> None:
    async def test() -> None:
        async with site() as served:
            names = Names(mixed_org=[["127.0.0.3", "127.0.0.1"]])
            http = tools(f"127.0.0.1:{served.port}", f"127.0.0.3:{served.port + 1}", names=names)
            assert (await http.request(get(f"http://mixed.org:{served.port}/"))).text == "hello"
    run(test())


def test_an_address_that_refuses_is_followed_by_the_next() -> None:
    async def test() -> None:
        async with site() as served:
            names = Names(two_org=[["127.0.0.9", "127.0.0.1"]])
            http = tools(*(f"{host}:{served.port}" for host in ("127.0.0.9", "127.0.0.1")), names=names)
            assert (await http.request(get(f"http://two.org:{served.port}/"))).text == "hello"
    run(test())


def test_a_redirect_is_an_answer() -> None:
    async def test() -> None:
        async with site() as target:
            answer = f"HTTP/1.1 302 Found\r\nlocation: http://127.0.0.1:{target.port}/\r\ncontent-length: 0\r\n\r\n"
            async with site(answer.encode()) as served:
                http = tools(f"127.0.0.1:{served.port}", f"127.0.0.1:{target.port}")
                response = await http.request(get(f"http://127.0.0.1:{served.port}/"))
                assert response.status == 302
                assert dict(response.headers)["location"] == f"http://127.0.0.1:{target.port}/"
                assert not target.asked
    run(test())


ASK = """
import asyncio, sys
from cadenza.kernel.http_request import HttpRequest
from cadenza.kernel.manifest import Manifest
from cadenza.server.http_tools import HttpTools
host = f"127.0.0.1:{sys.argv[1]}"
print(asyncio.run(HttpTools(Manifest((host,))).request(HttpRequest.parse("GET", f"http://{host}/", [], ""))).text)
"""


def test_proxies_of_the_environment_are_not_asked() -> None:
    async def test() -> None:
        async with site() as served, site() as proxy:
            names = ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY")
            child = await asyncio.create_subprocess_exec(
                sys.executable, "-c", ASK, str(served.port), stdout=asyncio.subprocess.PIPE,
                env={**os.environ, **dict.fromkeys(names, f"http://127.0.0.1:{proxy.port}")})
            said, _ = await child.communicate()
            assert (said, len(served.asked), proxy.asked) == (b"hello\n", 1, [])
    run(test())


# --- TLS ---

def test_a_certificate_is_verified_against_the_name(certificate: tuple[Path, Path]) -> None:
    async def test() -> None:
        own = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        own.load_cert_chain(*certificate)
        trusting = ssl.create_default_context(cafile=str(certificate[0]))
        async with site(tls=own) as served:
            names = Names(other_org=[["127.0.0.1"]])
            hosts = (f"127.0.0.1:{served.port}", f"other.org:{served.port}")
            http = tools(*hosts, names=names, tls=trusting)
            assert (await http.request(get(f"https://127.0.0.1:{served.port}/"))).text == "hello"
            with pytest.raises(Closed, match=r"other\.org.*CERTIFICATE_VERIFY_FAILED"):
                await http.request(get(f"https://other.org:{served.port}/"))
            with pytest.raises(Closed, match="self-signed"):
                await tools(*hosts).request(get(f"https://127.0.0.1:{served.port}/"))
            assert len(served.asked) == 1
    run(test())


# --- what comes back ---

@pytest.mark.parametrize("more", [0, 1, 5_000_000])
def test_a_body_is_kept_up_to_its_limit(more: int) -> None:
    async def test() -> None:
        size = HTTP_BODY_BYTES + more
        async with site(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % size + b"x" * size) as served:
            response = await tools(f"127.0.0.1:{served.port}").request(get(f"http://127.0.0.1:{served.port}/"))
            assert (response.size, response.cut) == (HTTP_BODY_BYTES, more > 0)
    run(test())


@pytest.mark.parametrize("answer", [b"", b"not http\r\n\r\n", b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhello",
                                    b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
                                    b"HTTP/1.1 200 OK\r\nx: " + b"y" * 300_000 + b"\r\n\r\n"])
def test_what_is_no_response_is_a_connection_that_broke(answer: bytes) -> None:
    async def test() -> None:
        async with site(answer) as served:
            with pytest.raises(Closed, match=f"127.0.0.1:{served.port}"):
                await tools(f"127.0.0.1:{served.port}").request(get(f"http://127.0.0.1:{served.port}/"))
    run(test())


def test_too_many_headers_are_refused() -> None:
    async def test() -> None:
        headers = b"x: y\r\n" * (HTTP_HEADERS + 1) + b"content-length: 0\r\n\r\n"
        async with site(b"HTTP/1.1 200 OK\r\n" + headers) as served:
            with pytest.raises(LimitExceeded, match=str(HTTP_HEADERS)):
                await tools(f"127.0.0.1:{served.port}").request(get(f"http://127.0.0.1:{served.port}/"))
    run(test())


def test_a_name_without_address_and_a_port_without_server() -> None:
    async def test() -> None:
        async with site() as served:
            pass
        with pytest.raises(NotFound, match=r"absent\.org"):
            await tools("*", names=Names()).request(get("http://absent.org/"))
        with pytest.raises(Closed, match="cannot connect"):
            await tools(f"127.0.0.1:{served.port}").request(get(f"http://127.0.0.1:{served.port}/"))
    run(test())


def test_a_request_that_is_given_up_closes_its_connection() -> None:
    async def test() -> None:
        async with site(None) as served:
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.2):
                    await tools(f"127.0.0.1:{served.port}").request(get(f"http://127.0.0.1:{served.port}/"))
            async with asyncio.timeout(5):
                while served.open:
                    await asyncio.sleep(0.01)
            assert len(served.asked) == 1
    run(test())


def test_each_request_has_a_connection_of_its_own() -> None:
    async def test() -> None:
        async with site() as served:
            http = tools(f"127.0.0.1:{served.port}")
            for _ in range(3):
                await http.request(get(f"http://127.0.0.1:{served.port}/"))
            assert len(served.asked) == 3
            assert served.open == 0
    run(test())
