"""Where the daemon listens: an address, checked, and whether it may be listened on."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass

import grpc

from cadenza.kvfs.errors import Invalid
from cadenza.server.options import ListenOptions


@dataclass(frozen=True, slots=True)
class Address:
    host: str
    port: int

    @property
    def loopback(self) -> bool:
        """Whether only this machine reaches it. Of names only `localhost` is trusted to be so."""
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"

    def with_port(self, port: int) -> Address:
        return Address(self.host, port)

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def parse_address(text: str) -> Address:
    """`host:port` or `[v6]:port`. Raises Invalid."""
    host, colon, port = text.rpartition(":")
    bare = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    if not colon or not bare or (":" in bare and bare == host) or not (port.isascii() and port.isdigit()):
        raise Invalid(f"address {text!r} must be host:port, such as 127.0.0.1:50761 or [::1]:50761", "address")
    if int(port) > 65535:
        raise Invalid(f"port {port} is above 65535", "address")
    return Address(bare, int(port))


def check_listening(options: ListenOptions) -> Address:
    """The address, if the options make it safe. Raises Invalid with what is missing."""
    address = parse_address(options.address)
    if (options.tls_cert is None) != (options.tls_key is None):
        raise Invalid("TLS needs both --tls-cert and --tls-key", "tls")
    missing = [
        what
        for what, present in (("keys (--keys)", options.keys), ("TLS (--tls-cert, --tls-key)", options.tls_cert))
        if present is None
    ]
    if not address.loopback and missing:
        raise Invalid(
            f"{address} can be reached from other machines, so it needs {' and '.join(missing)}: anyone there could "
            "run programs, or read the keys on their way. Make keys with 'cadenza keys add USER', or listen on "
            "127.0.0.1 and use an SSH tunnel", "address"
        )  # fmt: skip
    return address


def credentials(options: ListenOptions) -> grpc.ServerCredentials | None:
    """Of TLS, or None without it. Raises Invalid if a file cannot be read."""
    if options.tls_cert is None or options.tls_key is None:
        return None
    try:
        return grpc.ssl_server_credentials([(options.tls_key.read_bytes(), options.tls_cert.read_bytes())])
    except OSError as error:
        raise Invalid(f"cannot read {error.filename}: {error.strerror}", "tls") from error
