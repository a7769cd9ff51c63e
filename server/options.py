"""What `cadenza serve` can be told, and how boot tells how far it is."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from cadenza.kernel.limits import RUN_AHEAD_STEPS, STEP_TOKENS, ProcessLimits
from cadenza.server.allowed import Allowed

MEMORY_POLICY = "ours"
DEFAULT_ADDRESS = "127.0.0.1:50761"

# progress(what, done, total): `what` names a phase of the boot, such as "load weights"; done == total ends it. A total
# of 0 means that it is unknown.
Progress = Callable[[str, int, int], None]


def default_state() -> Path:
    """The directory of everything that outlives the daemon: $CADENZA_STATE, or ~/.local/share/cadenza."""
    chosen = os.environ.get("CADENZA_STATE")
    if chosen:
        return Path(chosen)
    data = os.environ.get("XDG_DATA_HOME")
    return (Path(data) if data else Path.home() / ".local" / "share") / "cadenza"


def default_cache() -> Path:
    """The directory of what can be made again (the interpreter image, compiled programs): $CADENZA_CACHE, or
    ~/.cache/cadenza."""
    chosen = os.environ.get("CADENZA_CACHE")
    if chosen:
        return Path(chosen)
    cache = os.environ.get("XDG_CACHE_HOME")
    return (Path(cache) if cache else Path.home() / ".cache") / "cadenza"


@dataclass(frozen=True, slots=True)
class ServeOptions:
    """Everything that is chosen at boot. Units are in the names."""

    model: str | None = None                # a directory or a hub id; None: the bundled model
    device: str = "auto"                    # "auto", "cpu", "cuda", "null"
    dtype: str = "auto"                     # "auto", "float32", "bfloat16", "int8"
    pages: int | None = None                # KV pages; None: from `kv_gib`
    kv_gib: float | None = None             # KV memory; None: chosen for the device
    host_gib: float = 0.25                  # host tier: pages of idle files that made room on the device
    disk_gib: float = 8.0                   # KV files that were synced, at most; 0: none are kept
    quota_gib: float | None = None          # KV memory of one user; None: all that there is
    page_tokens: int = 16
    threads: int | None = None              # of the device on a CPU; None: one a core
    in_process: bool = False                # the device in the daemon's own process: for tests
    state: Path = field(default_factory=default_state)
    cache: Path = field(default_factory=default_cache)
    step_tokens: int = STEP_TOKENS          # input tokens of one step
    run_ahead: int = RUN_AHEAD_STEPS        # steps submitted before the first of them has come back
    memory_policy: str = MEMORY_POLICY      # what becomes of the pages of programs that wait
    limits: ProcessLimits = field(default_factory=ProcessLimits)
    allowed: Allowed = field(default_factory=Allowed)         # hosts and tools, to images whose manifest asks for them


@dataclass(frozen=True, slots=True)
class ListenOptions:
    """Where the daemon listens, and whom it lets in."""

    address: str = DEFAULT_ADDRESS          # host:port; port 0: any free one
    keys: Path | None = None                # the file of keys; None: everyone on this machine is the user "local"
    tls_cert: Path | None = None            # PEM, both or neither
    tls_key: Path | None = None
    metrics_port: int | None = None         # on loopback; 0: any free one; None: no metrics
    max_priority: int = 0                   # that users may give their processes
