"""HTTP for programs: one connection a request, to an address that was checked, by the name that was granted.

    name ──▶ our resolver ──▶ addresses ──▶ public, or named by the operator? ──▶ connect to that very address
                                                                                   TLS and `host` by the name

Nothing is asked twice, so an answer that changes between check and connection (DNS rebinding) changes nothing. No
proxies of the environment, no redirects, no cookies, no connection that another request has used.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import httpx2

from cadenza.kernel.hosts import address_of, is_public
from cadenza.kernel.http_request import Header, Headers, HttpRequest, HttpResponse, Url
from cadenza.kernel.limits import HTTP_BODY_BYTES, HTTP_HEADER_BYTES, HTTP_HEADERS
from cadenza.kernel.manifest import Manifest
from cadenza.kvfs.errors import Closed, Denied, LimitExceeded, NotFound
from cadenza.server.limits import CONNECT_ADDRESSES, CONNECT_SECONDS, RESOLVER_THREADS

# resolve(name, port) -> addresses, as text. Raises OSError.
Resolve = Callable[[str, int], Awaitable[Sequence[str]]]

USER_AGENT = "cadenza"
ONE_CONNECTION = httpx2.Limits(max_connections=1, max_keepalive_connections=0)
PATIENCE = {"connect": CONNECT_SECONDS, "read": None, "write": None, "pool": None}


class HttpTools:
    """`allowed`: the operator's; an address that is not public must be named there. `tls`: whom to believe."""

    def __init__(self, allowed: Manifest, *, resolve: Resolve | None = None, tls: ssl.SSLContext | None = None) -> None:
        self._allowed = allowed
        self._threads = ThreadPoolExecutor(RESOLVER_THREADS, "resolve")
        self._resolve = resolve or self._ask_the_system
        self._tls = tls or ssl.create_default_context()

    async def request(self, request: HttpRequest) -> HttpResponse:
        """Raises NotFound (no such name), Denied (no address that is allowed), Closed, LimitExceeded. Its caller keeps
        the time."""
        url = request.url
        addresses = await self._addresses(url)
        failure: httpx2.HTTPError | None = None
        for address in addresses[:CONNECT_ADDRESSES]:
            try:
                return await self._exchange(request, address)
            except (httpx2.ConnectError, httpx2.ConnectTimeout) as error:
                failure = error              # nothing has been sent: the next address may do
            except httpx2.HTTPError as error:
                raise Closed(f"{url.authority} broke the connection off: {cause(error)}") from None
        raise Closed(f"cannot connect to {url.authority} ({', '.join(addresses[:CONNECT_ADDRESSES])}): "
                     f"{cause(failure)}")

    def close(self) -> None:
        """Idempotent. Names that are being asked for are not waited for."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def _addresses(self, url: Url) -> list[str]:
        """Those that may be connected to, at least one."""
        literal = address_of(url.host)
        try:
            found = [str(literal)] if literal else list(dict.fromkeys(await self._resolve(url.host, url.port)))
        except (OSError, UnicodeError) as error:
            raise NotFound(f"the name {url.host!r} has no address: {error}") from None
        allowed = [address for address in found if self._may_reach(url, address)]
        if not allowed:
            named = f"[{found[0]}]:{url.port}" if found and ":" in found[0] else f"{(found or ['?'])[0]}:{url.port}"
            raise Denied(f"{url.host!r} leads to {', '.join(found) or 'no address'}, which is no public address: the "
                         f"operator may name it, with `--allow-host {named}`")
        return allowed

    def _may_reach(self, url: Url, text: str) -> bool:
        address = address_of(text)
        if address is None:
            return False
        named = (pattern for pattern in self._allowed.patterns if pattern.literal)
        return is_public(address) or any(pattern.matches(url.scheme, text, url.port) for pattern in named)

    async def _exchange(self, request: HttpRequest, address: str) -> HttpResponse:
        asked = as_httpx(request, address)
        async with httpx2.AsyncHTTPTransport(verify=self._tls, trust_env=False, limits=ONE_CONNECTION) as transport:
            response = await transport.handle_async_request(asked)
            try:
                headers = headers_of(request.url, response)
                body, cut = await read(response)
            finally:
                await response.aclose()
        return HttpResponse(response.status_code, headers, body, cut)

    async def _ask_the_system(self, name: str, port: int) -> Sequence[str]:
        """In threads of our own: a name server that is slow keeps nobody else waiting."""
        loop = asyncio.get_running_loop()
        found = await loop.run_in_executor(self._threads, socket.getaddrinfo, name, port, 0, socket.SOCK_STREAM)
        return [str(place[0]) for *_, place in found]


def as_httpx(request: HttpRequest, address: str) -> httpx2.Request:
    """To `address`, in the name of the host."""
    url = request.url
    where = httpx2.URL(scheme=url.scheme, host=address, port=url.port, raw_path=url.target.encode())
    headers = [("host", url.authority), *request.headers]
    if all(name != "user-agent" for name, _ in headers):
        headers.append(("user-agent", USER_AGENT))
    extensions = {"timeout": PATIENCE, "sni_hostname": url.host}
    raw = [(name.encode(), value.encode("latin-1")) for name, value in headers]
    return httpx2.Request(request.method, where, headers=raw, content=request.body or None, extensions=extensions)


def headers_of(url: Url, response: httpx2.Response) -> Headers:
    """Raises LimitExceeded."""
    raw = response.headers.raw
    headers = [Header(name.decode("latin-1").lower(), value.decode("latin-1")) for name, value in raw]
    if len(headers) > HTTP_HEADERS or sum(len(name) + len(value) for name, value in headers) > HTTP_HEADER_BYTES:
        raise LimitExceeded(f"{url.authority} answers more than {HTTP_HEADERS} headers, or more than "
                            f"{HTTP_HEADER_BYTES} bytes of them", "http_header_bytes")
    return headers


async def read(response: httpx2.Response) -> tuple[bytes, bool]:
    """The body as it comes, not unpacked, up to its limit; and whether there is more."""
    body = bytearray()
    async for chunk in response.aiter_raw():
        body += chunk
        if len(body) > HTTP_BODY_BYTES:
            return bytes(body[:HTTP_BODY_BYTES]), True
    return bytes(body), False


def cause(error: BaseException | None) -> str:
    return str(error) or type(error).__name__
