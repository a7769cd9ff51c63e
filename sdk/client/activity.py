"""What goes on: in the caller's processes, and in the machine as a whole."""

from __future__ import annotations

from dataclasses import dataclass

from cadenza.sdk.client.files import Tier, tiers_from_messages
from cadenza.sdk.proto.cadenza.v1 import processes_pb2 as pb


@dataclass(frozen=True, slots=True)
class PageCount:
    """Pages, each once, by where they lie: on the device, else on the host, else on disk, else nowhere: those are
    computed again when they are needed. `shared`: how many of them all others hold too."""

    device: int
    host: int
    disk: int
    lost: int
    shared: int


@dataclass(frozen=True, slots=True)
class Activity:
    """One process. `state`: "ready", "running", "waiting"; "queued", "prefilling" or "decoding" if its passes do so
    while it waits. `waiting_for`: what it says, or else what that is; `seconds`: since it last ran; `tokens`:
    sampled for it by now."""

    pid: int
    image_digest: str
    image_name: str
    state: str
    waiting_for: str
    seconds: float
    priority: int
    tokens: int
    pages: PageCount

    @classmethod
    def from_message(cls, message: pb.Activity) -> Activity:
        pages = message.pages
        return cls(
            message.pid, message.image_digest, message.image_name, message.state, message.waiting_for, message.seconds,
            message.priority, message.tokens,
            PageCount(pages.device, pages.host, pages.disk, pages.lost, pages.shared),
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Load:
    """The whole machine. What is done is counted since the daemon was started; `seconds` is when this was so, on a
    clock of the server's. `tokens` are inputs, `samples` tokens that were sampled; `rows` is None if nobody counts."""

    seconds: float
    device_seconds: float
    steps: int
    tokens: int
    samples: int
    rows: int | None
    preemptions: int
    swapped_out_pages: int
    swapped_in_pages: int
    work: int
    queued: int
    steps_under_way: int
    processes: int
    ready: int
    tiers: tuple[Tier, ...]

    @classmethod
    def from_message(cls, message: pb.Load) -> Load:
        return cls(
            message.seconds, message.device_seconds, message.steps, message.tokens, message.samples,
            message.rows if message.HasField("rows") else None, message.preemptions, message.swapped_out_pages,
            message.swapped_in_pages, message.work, message.queued, message.steps_under_way, message.processes,
            message.ready, tiers_from_messages(message.tiers),
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Top:
    """The machine, and the caller's processes that are alive, the most active first; `alive` counts them all."""

    load: Load
    processes: tuple[Activity, ...]
    alive: int

    @classmethod
    def from_message(cls, message: pb.TopResponse) -> Top:
        told = tuple(Activity.from_message(activity) for activity in message.processes)
        return cls(Load.from_message(message.load), told, message.alive)
