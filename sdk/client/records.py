"""What the server answers, as plain values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TypeAlias

from google.protobuf.timestamp_pb2 import Timestamp

from cadenza.sdk.proto.cadenza.v1 import images_pb2, processes_pb2, system_pb2


@dataclass(frozen=True, slots=True)
class Image:
    """An uploaded program. `digest`: SHA-256 of its bytes, hex; `kind`: "python" or "component"; `hosts` and `tools`:
    what its manifest asks for."""

    digest: str
    name: str
    kind: str
    size_bytes: int
    created_at: datetime
    hosts: tuple[str, ...] = ()
    tools: tuple[str, ...] = ()

    @classmethod
    def from_message(cls, message: images_pb2.Image) -> Image:
        created_at = datetime_of(message.created_at)
        return cls(message.digest, message.name, message.kind, message.size_bytes, created_at, tuple(message.hosts),
                   tuple(message.tools))


@dataclass(frozen=True, slots=True)
class ExitStatus:
    """How a process ended. `ending`: "finished", "failed", "exited", "trapped", "killed", "cpu-limit", …; `code` is 0
    only for "finished", and for "exited" with 0; `message`: why."""

    ending: str
    code: int
    message: str

    @classmethod
    def from_message(cls, message: processes_pb2.ExitStatus) -> ExitStatus:
        return cls(message.ending, message.code, message.message)


@dataclass(frozen=True, slots=True)
class Output:
    """Something that a program said. `kind`: "output" or "error" (its log), or "message" (to its client)."""

    sequence: int
    time: datetime
    kind: str
    text: str


@dataclass(frozen=True, slots=True)
class Lost:
    """So many events, right before the next one, are no longer kept."""

    events: int


Event: TypeAlias = Output | Lost | ExitStatus


@dataclass(frozen=True, slots=True)
class Limits:
    """What a process may use; None: the server's default, which is also the most."""

    memory_bytes: int | None = None
    cpu_fuel: int | None = None             # WebAssembly instructions
    wall_seconds: float | None = None
    output_bytes: int | None = None
    kv_pages: int | None = None
    descriptors: int | None = None
    handles: int | None = None
    children: int | None = None

    def message(self) -> processes_pb2.Limits:
        return processes_pb2.Limits(
            memory_bytes=self.memory_bytes,
            cpu_fuel=self.cpu_fuel,
            wall_seconds=self.wall_seconds,
            output_bytes=self.output_bytes,
            kv_pages=self.kv_pages,
            descriptors=self.descriptors,
            handles=self.handles,
            children=self.children,
        )


@dataclass(frozen=True, slots=True)
class Facts:
    """The server: which model runs on which device, with how much KV; and who the caller is."""

    version: str
    started_at: datetime
    user: str
    model: str
    fingerprint: str
    device: str
    pages: int
    page_tokens: int
    kv_tokens: int
    context_tokens: int

    @classmethod
    def from_message(cls, message: system_pb2.FactsResponse) -> Facts:
        return cls(
            message.version, datetime_of(message.started_at), message.user, message.model, message.fingerprint,
            message.device, message.pages, message.page_tokens, message.kv_tokens, message.context_tokens,
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A process as it was when the server answered. `state`: "ready", "running", "waiting", "ended"; `arguments`: a
    JSON object; `usage`: the unit is in the name."""

    pid: int
    image_digest: str
    image_name: str
    arguments: str
    state: str
    started_at: datetime
    ended_at: datetime | None
    exit: ExitStatus | None
    usage: Mapping[str, int]
    priority: int

    @classmethod
    def from_message(cls, message: processes_pb2.Process) -> Snapshot:
        return cls(
            message.pid, message.image_digest, message.image_name, message.arguments, message.state,
            datetime_of(message.started_at),
            datetime_of(message.ended_at) if message.HasField("ended_at") else None,
            ExitStatus.from_message(message.exit) if message.HasField("exit") else None,
            dict(message.usage), message.priority,
        )  # fmt: skip


def event_from_message(message: processes_pb2.Event) -> Event:
    """Of an output, lost or exit event; receipts are the attachment's own."""
    which = message.WhichOneof("event")
    if which == "exit":
        return ExitStatus.from_message(message.exit)
    if which == "lost":
        return Lost(message.lost.events)
    output = message.output
    return Output(output.sequence, datetime_of(output.time), output.kind, output.text)


def datetime_of(stamp: Timestamp) -> datetime:
    return stamp.ToDatetime(tzinfo=UTC)
