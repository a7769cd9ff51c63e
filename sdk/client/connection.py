"""The connection: one channel, the key on every call, and repeats of calls that may be repeated."""

from __future__ import annotations

import asyncio
import ipaddress
import os
import random
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

import grpc

from cadenza.sdk.client.errors import Invalid, Unavailable, translated

T = TypeVar("T")
Tls = bool | str | os.PathLike[str]
Metadata = tuple[tuple[str, str], ...]

ATTEMPTS = 4
FIRST_PAUSE_SECONDS = 0.1                   # doubled each time, and drawn between half and all of it
RECEIVED_BYTES = 32 << 20                   # of one answer: a process may say 16 MiB at once
OPTIONS = (
    ("grpc.max_receive_message_length", RECEIVED_BYTES),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 10_000),  # what it gives a connection to come about: a busy machine is slow
    ("grpc.max_reconnect_backoff_ms", 5000),
    ("grpc.use_local_subchannel_pool", 1),  # a closed client leaves no back-off behind for the next one
)


def open_channel(target: str, key: str | None, tls: Tls | None) -> grpc.aio.Channel:
    """`tls`: a PEM file of the authorities to trust, or True for the system's. Raises Invalid for a key that would
    travel in the clear, and for a file that cannot be read."""
    if not tls:
        if key and not is_loopback(target):
            raise Invalid("invalid", f"the key would travel to {target} in the clear; use TLS", field="tls")
        return grpc.aio.insecure_channel(target, options=OPTIONS)
    if tls is True:
        return grpc.aio.secure_channel(target, grpc.ssl_channel_credentials(), options=OPTIONS)
    try:
        roots = Path(tls).read_bytes()
    except OSError as error:
        raise Invalid("invalid", f"cannot read {tls}: {error.strerror}", field="tls") from error
    return grpc.aio.secure_channel(target, grpc.ssl_channel_credentials(roots), options=OPTIONS)


def metadata_of(key: str | None) -> Metadata:
    return (("authorization", f"Bearer {key}"),) if key else ()


def is_loopback(target: str) -> bool:
    host = target.rpartition(":")[0].strip("[]")
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


async def repeated(call: Callable[[], Awaitable[T]]) -> T:
    """Calls until the server is reached, up to ATTEMPTS times. Only for calls that bear a request id, or read."""
    pause = FIRST_PAUSE_SECONDS
    for _attempt in range(ATTEMPTS - 1):
        try:
            with translated():
                return await call()
        except Unavailable as error:
            if error.errno != "unavailable":  # the server was reached, and said so itself
                raise
        await asyncio.sleep(pause * random.uniform(0.5, 1))
        pause *= 2
    with translated():
        return await call()
