"""Hosts that a program may talk to: patterns of them, and which addresses are the public network's.

    api.example.org         that name, at its scheme's own port: 80 or 443
    api.example.org:8443    at that port
    *.example.org           every name below it, not itself
    *                       every name
    127.0.0.1:8080          an address; the only way to one that is not public
    [::1]:8080
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address

from cadenza.kvfs.errors import Invalid

Address = IPv4Address | IPv6Address

PORTS = {"http": 80, "https": 443}
GLOBAL_UNICAST = IPv6Network("2000::/3")    # the rest of IPv6 is local, mapped, translated, multicast or unassigned
_LABEL = r"[a-z0-9_](?:[a-z0-9_-]*[a-z0-9_])?"
NAME = re.compile(rf"(?=.{{1,253}}$){_LABEL}(?:\.{_LABEL})*")
_PORT = re.compile(r"[1-9][0-9]{0,4}")


@dataclass(frozen=True, slots=True)
class HostPattern:
    """`port` None: the scheme's own. `text`: as it was written."""

    text: str
    host: str
    port: int | None

    @classmethod
    def parse(cls, text: str) -> HostPattern:
        """Raises Invalid."""
        host, port = (text, None) if "/" in text else split_port(text.lower())
        bare = host.removeprefix("*.")
        if host != "*" and address_of(host) is None and not NAME.fullmatch(bare):
            raise Invalid(f"{text!r} is no pattern of hosts: write api.example.org, *.example.org:8443 or "
                          "127.0.0.1:8080; no scheme, no path", "hosts")
        return cls(text, str(address_of(host) or host), port)

    @property
    def literal(self) -> bool:
        """Whether it names an address."""
        return address_of(self.host) is not None

    def matches(self, scheme: str, host: str, port: int) -> bool:
        """`host`: a name in lower case, or an address."""
        if port != (PORTS[scheme] if self.port is None else self.port):
            return False
        if self.host.startswith("*."):
            return host.endswith(self.host[1:]) and address_of(host) is None
        return self.host in ("*", host)


def split_port(text: str) -> tuple[str, int | None]:
    """ "[::1]:8080" -> ("::1", 8080). Raises Invalid."""
    host, colon, port = text.rpartition(":")
    if not colon or (text.startswith("[") and text.endswith("]")):
        host, colon, port = text, "", ""
    if colon and (not _PORT.fullmatch(port) or int(port) > 65535):
        raise Invalid(f"{text!r} should end in a port from 1 to 65535; write IPv6 addresses as [::1]:8080", "hosts")
    bare = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    if (":" in bare) == (bare == host):
        raise Invalid(f"{text!r}: only IPv6 addresses, and all of them, stand in brackets", "hosts")
    return bare, int(port) if colon else None


def address_of(host: str) -> Address | None:
    """The address that `host` is written as; None for a name."""
    try:
        return ip_address(host)
    except ValueError:
        return None


def is_public(address: Address) -> bool:
    """Whether anybody on the Internet could answer there: no loopback, private, shared, link-local, multicast,
    unspecified, reserved address, and none that stands for another (mapped, 6to4, Teredo, NAT64)."""
    if isinstance(address, IPv6Address):
        if address not in GLOBAL_UNICAST or address.sixtofour is not None or address.teredo is not None:
            return False
        return address.is_global
    return address.is_global and not address.is_multicast and not address.is_reserved
