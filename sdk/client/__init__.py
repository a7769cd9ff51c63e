"""The client library: `from cadenza.sdk.client import Client`."""

from cadenza.sdk.client.activity import Activity, Load, PageCount, Top
from cadenza.sdk.client.adapters import Adapter
from cadenza.sdk.client.attachment import Attachment
from cadenza.sdk.client.client import DEFAULT_TARGET, Client
from cadenza.sdk.client.errors import (
    ClientError,
    DeadlineExceeded,
    Denied,
    Exists,
    Invalid,
    LimitExceeded,
    NotFound,
    Unauthenticated,
    Unavailable,
)
from cadenza.sdk.client.files import FileInfo, Tier, Usage
from cadenza.sdk.client.process import Process
from cadenza.sdk.client.records import Event, ExitStatus, Facts, Image, Limits, Lost, Output
from cadenza.sdk.client.trace import Trace, TraceRecord

__all__ = [
    "DEFAULT_TARGET",
    "Activity",
    "Adapter",
    "Attachment",
    "Client",
    "ClientError",
    "DeadlineExceeded",
    "Denied",
    "Event",
    "Exists",
    "ExitStatus",
    "Facts",
    "FileInfo",
    "Image",
    "Invalid",
    "LimitExceeded",
    "Limits",
    "Load",
    "Lost",
    "NotFound",
    "Output",
    "PageCount",
    "Process",
    "Tier",
    "Top",
    "Trace",
    "TraceRecord",
    "Unauthenticated",
    "Unavailable",
    "Usage",
]
