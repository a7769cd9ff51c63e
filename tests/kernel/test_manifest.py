"""What an image asks for: read from Python and from components, refused with the line; patterns of hosts."""

from __future__ import annotations

import contextlib
from ipaddress import ip_address

import pytest

from cadenza.kernel.hosts import HostPattern, is_public
from cadenza.kernel.limits import MANIFEST_BYTES, MANIFEST_PATTERNS
from cadenza.kernel.manifest import NOTHING, SECTION, Manifest, of_component, of_python, parse
from cadenza.kvfs.errors import Invalid, LimitExceeded

PROGRAM = '''"""An agent."""
# /// cadenza
# hosts = ["api.example.org", "*.example.org:8443"]
#
# tools = ["weather.forecast",   # a comment of TOML
#          "calendar.*"]
# ///
async def main(args): ...
'''
HEADER = b"\0asm\x0d\0\x01\0"


def section(name: str, content: bytes) -> bytes:
    body = bytes([len(name)]) + name.encode() + content
    return b"\0" + bytes([len(body) & 0x7F | 0x80, len(body) >> 7]) + body


# --- where it stands ---

@pytest.mark.parametrize("text", [PROGRAM, PROGRAM.replace("\n", "\r\n"), PROGRAM.replace("# ///\n", "# ///  \n")])
def test_a_python_program_asks_in_a_block_of_comments(text: str) -> None:
    asked = of_python([("main.py", text), ("other.py", "# /// cadenza\n# hosts = [\"elsewhere.org\"]\n# ///\n")])
    assert asked == Manifest(("api.example.org", "*.example.org:8443"), ("weather.forecast", "calendar.*"))


def test_a_program_without_a_block_asks_for_nothing() -> None:
    assert of_python([("main.py", "# /// script\n# dependencies = []\n# ///\n")]) == NOTHING


def test_a_component_asks_in_a_custom_section() -> None:
    wasm = HEADER + section("producers", b"x" * 200) + section(SECTION, b'hosts = ["a.org"]') + b"\x01\x02\x00\x00"
    assert of_component(wasm) == Manifest(("a.org",))
    assert of_component(HEADER + section("producers", b"x")) == NOTHING


@pytest.mark.parametrize("cut", range(0, 60, 7))
def test_a_component_that_is_cut_off_is_no_fault_of_ours(cut: int) -> None:
    wasm = HEADER + section("producers", b"x" * 30) + section(SECTION, b'hosts = ["a.org"]')
    with contextlib.suppress(Invalid):
        assert of_component(wasm[:cut]) == NOTHING


@pytest.mark.parametrize(("text", "words"), [
    ("# /// cadenza\n# hosts = []\n", "not ended"),
    ("# /// cadenza\nhosts = []\n# ///\n", "main.py:2"),
    ("# /// cadenza\n# ///\n# /// cadenza\n# ///\n", "main.py:3: a second"),
    ("# /// cadenza\n# hosts = [\n# ///\n", "main.py:1: the manifest is not TOML"),
    ("# /// cadenza\n# host = []\n# ///\n", "no 'host'; it has hosts and tools"),
    ("# /// cadenza\n# hosts = 'a.org'\n# ///\n", "a list of texts"),
    ("# /// cadenza\n# hosts = ['https://a.org']\n# ///\n", "https://a.org"),
    ("# /// cadenza\n# tools = ['weather']\n# ///\n", "SERVER.TOOL"),
])
def test_what_is_malformed_is_refused_with_its_place(text: str, words: str) -> None:
    with pytest.raises(Invalid, match=words.replace("*", r"\*")) as refused:
        of_python([("main.py", text)])
    assert refused.value.field == "manifest"


def test_its_limits() -> None:
    assert len(parse(f"hosts = {['a.org'] * MANIFEST_PATTERNS}", "x").hosts) == MANIFEST_PATTERNS
    with pytest.raises(LimitExceeded, match=str(MANIFEST_PATTERNS)):
        parse(f"tools = {['a.b'] * (MANIFEST_PATTERNS + 1)}", "x")
    assert parse("#" * MANIFEST_BYTES, "x") == NOTHING
    with pytest.raises(LimitExceeded, match=str(MANIFEST_BYTES)):
        parse("#" * (MANIFEST_BYTES + 1), "x")
    with pytest.raises(Invalid):
        parse("a=" + "[" * 8000, "x")


# --- patterns ---

@pytest.mark.parametrize(("pattern", "scheme", "host", "port", "matches"), [
    ("api.example.org", "https", "api.example.org", 443, True),
    ("api.example.org", "http", "api.example.org", 80, True),
    ("api.example.org", "https", "api.example.org", 8443, False),
    ("api.example.org", "http", "api.example.org", 443, False),
    ("API.example.org:8443", "https", "api.example.org", 8443, True),
    ("api.example.org:8443", "https", "api.example.org", 443, False),
    ("example.org", "https", "evilexample.org", 443, False),
    ("*.example.org", "https", "a.b.example.org", 443, True),
    ("*.example.org", "https", "example.org", 443, False),
    ("*.example.org", "https", "example.org.evil.net", 443, False),
    ("*", "https", "anything.net", 443, True),
    ("*", "https", "anything.net", 444, False),
    ("127.0.0.1:8080", "http", "127.0.0.1", 8080, True),
    ("[::1]:8080", "http", "::1", 8080, True),
    ("*.0.0.1", "http", "127.0.0.1", 80, False),
])
def test_what_a_pattern_matches(pattern: str, scheme: str, host: str, port: int, matches: bool) -> None:
    assert HostPattern.parse(pattern).matches(scheme, host, port) is matches


@pytest.mark.parametrize("text", ["", "*.", "a..b", "-a.b", "::1", "[a]", "a:0", "a:65536", "*.*.a", "é.fr"])
def test_what_is_no_pattern(text: str) -> None:
    with pytest.raises(Invalid):
        HostPattern.parse(text)


def test_which_addresses_are_public() -> None:
    public = ["8.8.8.8", "2606:4700::1"]
    local = ["127.0.0.1", "10.0.0.1", "172.16.0.1", "192.168.0.1", "169.254.169.254", "100.64.0.1", "0.0.0.0",
             "224.0.0.1", "233.1.1.1", "240.0.0.1", "255.255.255.255", "192.0.2.1", "198.18.0.1", "::", "::1",
             "fe80::1", "fc00::1", "fec0::1", "ff02::1", "::ffff:127.0.0.1", "::ffff:8.8.8.8", "::127.0.0.1",
             "64:ff9b::7f00:1",
             "2002:7f00:1::", "2001::1", "2001:db8::1"]
    assert [text for text in public + local if is_public(ip_address(text))] == public
