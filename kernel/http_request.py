"""An HTTP request as a program asks for it, checked; and its response.

A URL is read here and nowhere else: who connects is given its parts, so that no two readers of it can disagree.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple
from urllib.parse import quote, urlsplit

from cadenza.kernel.hosts import NAME, PORTS, address_of
from cadenza.kernel.limits import HTTP_HEADER_BYTES, HTTP_HEADERS, MESSAGE_BYTES, URL_BYTES
from cadenza.kvfs.errors import Invalid

METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
OURS = frozenset({"host", "content-length", "transfer-encoding", "connection", "keep-alive", "upgrade", "te", "trailer",
                  "expect", "proxy-authorization", "proxy-connection"})
TEXT_ENCODINGS = frozenset({"utf-8", "utf8", "us-ascii", "iso-8859-1", "latin-1", "windows-1252", "utf-16"})
_TOKEN = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
_VALUE = re.compile(r"[\t\x20-\x7e\x80-\xff]*")
_CHARSET = re.compile(r"charset=\"?([\w-]+)", re.IGNORECASE)
_SAFE = "%/:?#[]@!$&'()*+,;=-._~"           # of a path and a query; the rest is sent as %XX


class Header(NamedTuple):
    """Latin-1, as HTTP has it. `name` is in lower case, but for what a program sends."""

    name: str
    value: str


Headers = Sequence[Header]


@dataclass(frozen=True, slots=True)
class Url:
    """`host`: a name in lower case, or an address; `target`: path and query, ASCII."""

    scheme: str
    host: str
    port: int
    target: str

    @classmethod
    def parse(cls, text: str) -> Url:
        """Raises Invalid."""
        if len(text.encode(errors="replace")) > URL_BYTES or re.search(r"[\x00-\x20\x7f\\]", text):
            raise Invalid(f"a URL has at most {URL_BYTES} bytes, no spaces, control characters or backslashes", "url")
        try:
            parts = urlsplit(text)
            port, host = parts.port, (parts.hostname or "").removesuffix(".")
        except ValueError as error:
            raise Invalid(f"the URL {text[:200]!r} cannot be read: {error}", "url") from None
        if parts.scheme not in PORTS:
            raise Invalid(f"the URL {text[:200]!r} should begin with http:// or https://", "url")
        if "@" in parts.netloc:
            raise Invalid("the URL holds a user or a password: send a header `authorization` in their place", "url")
        address = address_of(host)
        if port == 0 or (address is None and not NAME.fullmatch(host)):
            raise Invalid(f"the URL {text[:200]!r} names no host: a name in ASCII (xn--…) or an address", "url")
        target = quote(parts.path or "/", safe=_SAFE) + (f"?{quote(parts.query, safe=_SAFE)}" if parts.query else "")
        return cls(parts.scheme, str(address or host), port or PORTS[parts.scheme], target)

    @property
    def authority(self) -> str:
        """What the header `host` says, and a manifest: the port only if it is not the scheme's own."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == PORTS[self.scheme] else f"{host}:{self.port}"

    def __str__(self) -> str:
        return f"{self.scheme}://{self.authority}{self.target}"


@dataclass(frozen=True, slots=True)
class HttpRequest:
    """`body` is sent as it is, without one if it is empty."""

    method: str
    url: Url
    headers: Headers = ()
    body: bytes = b""

    @classmethod
    def parse(cls, method: str, url: str, headers: Headers, body: str) -> HttpRequest:
        """Raises Invalid."""
        if method not in METHODS:
            raise Invalid(f"method {method[:20]!r} should be one of {', '.join(METHODS)}", "method")
        check_headers(headers)
        content = body.encode(errors="replace")
        if len(content) > MESSAGE_BYTES:
            raise Invalid(f"the body has {len(content)} bytes; at most {MESSAGE_BYTES} are sent", "body")
        return cls(method, Url.parse(url), [Header(name.lower(), value) for name, value in headers], content)


@dataclass(frozen=True, slots=True)
class HttpResponse:
    """`body`: its first HTTP_BODY_BYTES, as they came; `cut`: there were more."""

    status: int
    headers: Headers
    body: bytes
    cut: bool

    @property
    def size(self) -> int:
        """Bytes of `body`."""
        return len(self.body)

    @property
    def text(self) -> str:
        """By the encoding that the headers name, or UTF-8. Bytes that are none become U+FFFD."""
        named = _CHARSET.search(dict(self.headers).get("content-type", ""))
        encoding = named[1].lower() if named else "utf-8"
        return self.body.decode(encoding if encoding in TEXT_ENCODINGS else "utf-8", "replace")


def check_headers(headers: Headers) -> None:
    """Raises Invalid for what is no header, is ours to send, or is too much."""
    if len(headers) > HTTP_HEADERS or sum(len(name) + len(value) for name, value in headers) > HTTP_HEADER_BYTES:
        raise Invalid(f"at most {HTTP_HEADERS} headers of {HTTP_HEADER_BYTES} bytes in all are sent", "headers")
    for name, value in headers:
        if not _TOKEN.fullmatch(name) or not _VALUE.fullmatch(value):
            raise Invalid(f"header {name[:60]!r} has a name or a value that HTTP does not allow", "headers")
        if name.lower() in OURS:
            raise Invalid(f"header {name!r} is not a program's to send: leave it out", "headers")
