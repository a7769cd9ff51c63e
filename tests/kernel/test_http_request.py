"""Requests of programs: one reading of a URL, and nothing in a header that is not the program's to say."""

from __future__ import annotations

import pytest

from cadenza.kernel.http_request import Header, HttpRequest, HttpResponse, Url
from cadenza.kernel.limits import HTTP_HEADERS, MESSAGE_BYTES, URL_BYTES
from cadenza.kvfs.errors import Invalid


@pytest.mark.parametrize(("text", "scheme", "host", "port", "target"), [
    ("https://API.Example.org", "https", "api.example.org", 443, "/"),
    ("http://a.org:8080/x?y=1#z", "http", "a.org", 8080, "/x?y=1"),
    ("https://a.org./x", "https", "a.org", 443, "/x"),
    ("https://a.org/ü?q=ä%20b", "https", "a.org", 443, "/%C3%BC?q=%C3%A4%20b"),
    ("http://[::1]:81/", "http", "::1", 81, "/"),
    ("http://[0:0::1]", "http", "::1", 80, "/"),
    ("http://2130706433/", "http", "2130706433", 80, "/"),         # a name, to be resolved and checked
    ("https://a.org?x", "https", "a.org", 443, "/?x"),
])
def test_a_url_is_read(text: str, scheme: str, host: str, port: int, target: str) -> None:
    assert Url.parse(text) == Url(scheme, host, port, target)


@pytest.mark.parametrize("text", [
    "", "a.org", "//a.org", "ftp://a.org", "file:///etc/passwd", "https://", "https:///x", "https://user@a.org",
    "https://u:p@a.org", "https://a.org@b.org", "https://a.org\\@b.org", "https://a.org:0", "https://a.org:99999",
    "https://a.org:x", "https://a b.org", "https://a.org/\nx", "https://é.fr", "https://[::1",
    "http://[::1%25eth0]/x y", "https://a..org", "https://a.org/" + "x" * URL_BYTES,
])
def test_what_is_no_url(text: str) -> None:
    with pytest.raises(Invalid) as refused:
        Url.parse(text)
    assert refused.value.field == "url"


@pytest.mark.parametrize(("headers", "words"), [
    ([("host", "elsewhere")], "'host'"), ([("Content-Length", "3")], "Content-Length"),
    ([("transfer-encoding", "chunked")], "transfer"),
    ([("x", "a\r\ny: b")], "not allow"), ([("x y", "a")], "not allow"),
    ([("", "a")], "not allow"), ([("x", "λ")], "not allow"), ([("x", "a")] * (HTTP_HEADERS + 1), str(HTTP_HEADERS)),
])
def test_headers_that_are_refused(headers: list[tuple[str, str]], words: str) -> None:
    with pytest.raises(Invalid, match=words):
        HttpRequest.parse("GET", "https://a.org", [Header(*each) for each in headers], "")


def test_methods_and_bodies_that_are_refused() -> None:
    for method in ("CONNECT", "TRACE", "get", "GET / HTTP/1.1\r\n", ""):
        with pytest.raises(Invalid, match="method"):
            HttpRequest.parse(method, "https://a.org", [], "")
    assert len(HttpRequest.parse("POST", "https://a.org", [], "x" * MESSAGE_BYTES).body) == MESSAGE_BYTES
    with pytest.raises(Invalid, match=str(MESSAGE_BYTES)):
        HttpRequest.parse("POST", "https://a.org", [], "x" * (MESSAGE_BYTES + 1))


@pytest.mark.parametrize(("kind", "body", "text"), [
    ("text/html; charset=ISO-8859-1", b"\xe9", "é"), ("text/html", "é".encode(), "é"), ("text/html", b"\xe9", "\ufffd"),
    ("text/plain; charset=zlib", b"x", "x"), ('text/plain; charset="utf-8"', "é".encode(), "é"),
])
def test_the_text_of_a_body(kind: str, body: bytes, text: str) -> None:
    assert HttpResponse(200, [Header("content-type", kind)], body, False).text == text
