"""What a device is asked and what it answers: flat arrays, so that they travel through shared memory as they are.

A *row* is one pass's part of a step. A row reads KV segments in order, and appends its new tokens to the last one:

    row r:  segment 0 ──────── segment 1 ─── … last segment ──┬─ new tokens of this row
            pages a, b, c      pages d                pages e, f   (their slots lie in e, f)

A segment is a run of slots in its pages: it begins `skip` slots into the first of them. Its tokens have offsets in the
row, from `first` on; offsets between two segments belong to hidden tokens, which nobody reads. Its keys were rotated
to the positions that are stored with them; they are read as if they stood `shift` further on, which a device does by
turning the query back, so a relocated file takes no page of its own.

A *slot* is one token's place in the pool: page × page_tokens + offset in the page. A *lane* is a number that a decode
holds while it lives; the device remembers the last token sampled on each lane, so that an input can name it before
anybody has seen it: input −1−l is "the last token sampled on lane l".

Beside its pages a device has a *host tier*: memory that the kernel reads and writes too, in which host page h is the
image of one page: K and V of all layers, then the positions (int32) of its slots. The order in a step: tokens move from
slot to slot, pages go out to the host tier, come in from it, are copied; then the rows are computed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, fields
from functools import cache
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from cadenza.kvfs.errors import Unsupported

Int32 = NDArray[np.int32]
Int64 = NDArray[np.int64]
UInt8 = NDArray[np.uint8]
UInt64 = NDArray[np.uint64]
Float32 = NDArray[np.float32]

PROBE_TOP, PROBE_LOG_PROBABILITIES, PROBE_ENTROPY, PROBE_LOGITS, PROBE_HIDDEN = range(5)

_NO_UINT8, _NO_MASKS = np.zeros(0, np.uint8), np.zeros((0, 0), np.uint8)
_NO_UINT64, _NO_INT64 = np.zeros(0, np.uint64), np.zeros(0, np.int64)


@cache
def _int32(*shape: int) -> Int32:
    """What most arrays of most batches are, and so the same object by default, never written to."""
    return np.zeros(shape, np.int32)


@cache
def _float32(*shape: int) -> Float32:
    return np.zeros(shape, np.float32)


@dataclass(slots=True)
class Batch:
    """One step's work. T tokens, R rows, S segments, P page references, N samples, M masks, Q probes, C copies, B
    biases, W scores."""

    step: int
    # Before all else, and all at once: K, V and positions of single tokens, of a draft that was accepted.
    moves: Int32 = field(default_factory=lambda: _int32(0, 2))                       # [·, 2] slot, slot
    # Whole pages, in this order, before the rows. Copies are how a fork becomes a file of its own.
    swap_outs: Int32 = field(default_factory=lambda: _int32(0, 2))                   # [·, 2] page, host page
    swap_ins: Int32 = field(default_factory=lambda: _int32(0, 2))                    # [·, 2] host page, page
    copies: Int32 = field(default_factory=lambda: _int32(0, 2))                      # [C, 2]
    # Input.
    tokens: Int32 = field(default_factory=lambda: _int32(0))                         # [T] id, or −1−lane
    positions: Int32 = field(default_factory=lambda: _int32(0))                      # [T] for RoPE and for causality
    slots: Int32 = field(default_factory=lambda: _int32(0))                          # [T] where its K and V go
    row_starts: Int32 = field(default_factory=lambda: _int32(1))                     # [R+1] into tokens
    adapters: Int32 = field(default_factory=lambda: _int32(0))                       # [R] slot, −1: none; or [0]: all
    # What is read. Lengths include the row's own new tokens. The last segment of a row ends where the row ends.
    segment_starts: Int32 = field(default_factory=lambda: _int32(1))                 # [R+1] into segment_tokens
    segment_tokens: Int32 = field(default_factory=lambda: _int32(0))                 # [S] tokens of each segment
    segment_firsts: Int32 = field(default_factory=lambda: _int32(0))                 # [S] offset of its first token
    segment_skips: Int32 = field(default_factory=lambda: _int32(0))                  # [S] slots of its pages before it
    segment_shifts: Int32 = field(default_factory=lambda: _int32(0))                 # [S] added to stored positions
    page_starts: Int32 = field(default_factory=lambda: _int32(1))                    # [S+1] into pages
    pages: Int32 = field(default_factory=lambda: _int32(0))                          # [P]
    # 1: one segment without skip or shift whose every position equals its offset: causality by offset says all.
    contiguous: UInt8 = field(default_factory=lambda: _NO_UINT8)                     # [R]
    # Ranges of visible offsets: (row-local token index, first, count). A token named by none sees all before it.
    visible_starts: Int32 = field(default_factory=lambda: _int32(1))                 # [R+1] into visible_ranges
    visible_ranges: Int32 = field(default_factory=lambda: _int32(0, 3))              # [·, 3]
    # Sampling. Bit i of byte b of a mask: token 8b+i is allowed.
    sample_tokens: Int32 = field(default_factory=lambda: _int32(0))                  # [N] index into tokens
    sample_lanes: Int32 = field(default_factory=lambda: _int32(0))                   # [N] lane that remembers it, or −1
    temperature: Float32 = field(default_factory=lambda: _float32(0))                # [N] 0 is greedy
    top_k: Int32 = field(default_factory=lambda: _int32(0))                          # [N] 0 is off
    top_p: Float32 = field(default_factory=lambda: _float32(0))                      # [N] 1 is off
    min_p: Float32 = field(default_factory=lambda: _float32(0))                      # [N] 0 is off
    seeds: UInt64 = field(default_factory=lambda: _NO_UINT64)                        # [N]
    draws: Int64 = field(default_factory=lambda: _NO_INT64)                          # [N] the token's offset
    sample_masks: Int32 = field(default_factory=lambda: _int32(0))                   # [N] index into masks, or −1
    masks: UInt8 = field(default_factory=lambda: _NO_MASKS)                          # [M, ⌈V/8⌉]
    late_masks: Int32 = field(default_factory=lambda: _int32(0))                     # [·] masks that come late
    # Probes.
    probe_tokens: Int32 = field(default_factory=lambda: _int32(0))                   # [Q] index into tokens
    probe_kinds: Int32 = field(default_factory=lambda: _int32(0))                    # [Q] PROBE_…
    probe_counts: Int32 = field(default_factory=lambda: _int32(0))                   # [Q] k of top
    asked_starts: Int32 = field(default_factory=lambda: _int32(1))                   # [Q+1] into asked
    asked: Int32 = field(default_factory=lambda: _int32(0))                          # tokens of log_probabilities
    # Biases and penalties: [0] or [0, 3] where no sample of the batch has one. A penalised sample is told its history,
    # or, with none, has that of its lane: what was told last, and what was sampled on the lane since.
    sample_biases: Int32 = field(default_factory=lambda: _int32(0))                  # [N] index into biases, or −1
    bias_starts: Int32 = field(default_factory=lambda: _int32(1))                    # [B+1] into the two below
    bias_tokens: Int32 = field(default_factory=lambda: _int32(0))
    bias_values: Float32 = field(default_factory=lambda: _float32(0))                # added to logits
    penalties: Float32 = field(default_factory=lambda: _float32(0, 3))               # [N, 3] see penalties.py
    windows: Int32 = field(default_factory=lambda: _int32(0))                        # [N] tokens of history; 0: all
    told_starts: Int32 = field(default_factory=lambda: _int32(1))                    # [N+1] into told
    told: Int32 = field(default_factory=lambda: _int32(0))                           # tokens, the latest last
    forgotten: Int32 = field(default_factory=lambda: _int32(0))                      # lanes given back with a history
    # Scores: how likely a token is after another.
    score_tokens: Int32 = field(default_factory=lambda: _int32(0))                   # [W] index into tokens
    score_targets: Int32 = field(default_factory=lambda: _int32(0))                  # [W] id

    def arrays(self) -> dict[str, NDArray[np.generic]]:
        """Every array by its name, in a fixed order."""
        return {f.name: getattr(self, f.name) for f in fields(self) if f.name != "step"}


@dataclass(slots=True)
class StepResult:
    """One step's answer. `error` is empty, or why the whole step failed; then the arrays are empty.

    A probe's values: top gives k log-probabilities and the tail mass (k ids in `probe_ids`); log_probabilities one
    value per asked token; entropy one value (nats); logits V values, before temperature and mask; hidden the state that
    the logits are computed from, normed.
    """

    step: int
    tokens: Int32 = field(default_factory=lambda: _int32(0))                         # [N]
    probe_starts: Int32 = field(default_factory=lambda: _int32(1))                   # [Q+1] into probe_values
    probe_values: Float32 = field(default_factory=lambda: _float32(0))
    id_starts: Int32 = field(default_factory=lambda: _int32(1))                      # [Q+1] into probe_ids
    probe_ids: Int32 = field(default_factory=lambda: _int32(0))
    failed_rows: Int32 = field(default_factory=lambda: _int32(0))                    # whose adapters made no numbers
    scores: Float32 = field(default_factory=lambda: _float32(0))                     # [W] log-probabilities
    seconds: float = 0.0                                                             # what the step took on the device
    error: str = ""

    def arrays(self) -> dict[str, NDArray[np.generic]]:
        """Every array by its name, in a fixed order."""
        return {f.name: getattr(self, f.name) for f in fields(self) if f.name not in ("step", "seconds", "error")}


@dataclass(frozen=True, slots=True)
class DeviceFacts:
    """What the kernel must know of a device. Page 0 … pages−1 exist; all are free at boot."""

    name: str                 # for a person: "torch cpu float32, 2 threads"
    pages: int
    page_tokens: int
    page_bytes: int           # of its image: K and V of all layers, and the positions
    vocabulary_size: int
    context_tokens: int
    host_pages: int = 0       # pages of the host tier
    late_masks: bool = False  # steps may be submitted before all their masks are known
    hidden_size: int = 0      # numbers of a hidden state; 0: it shows none
    weights: str = ""         # their type, where it is not that of K and V: such pages are not those of plain weights


@runtime_checkable
class Adapting(Protocol):
    """A device that computes with adapters: `Batch.adapters` names the slots that they are loaded into.

    A row whose adapter makes numbers that are not finite is answered in `failed_rows`; its slots are zero then, and
    what it sampled means nothing. Other rows are computed as ever.
    """

    def load_adapter(self, slot: int, directory: Path) -> None:
        """Reads a `peft` directory; blocks, beside steps on another thread if the caller likes. No step names the slot
        meanwhile. Raises Invalid for an adapter of another model, and what `read_adapter` raises."""

    def drop_adapter(self, slot: int) -> None:
        """Idempotent."""


def adapting(device: Device) -> Adapting:
    """Raises Unsupported for a device that computes without adapters."""
    if not isinstance(device, Adapting):
        raise Unsupported(f"the device ({device.facts.name}) takes no adapters")
    return device


@runtime_checkable
class LateMasking(Protocol):
    """A device that samples under masks which are not known yet when a step begins: the kernel makes them out of what
    the step before sampled, while the device computes."""

    def ask_for_masks(self, ask: Callable[[], None]) -> None:
        """Names whom it calls, once a step that has `late_masks`, before it reads `masks`: when that returns they are
        there. Before the first step."""


class Device(Protocol):
    """The seam. `step` blocks until the batch is done and never keeps a reference to it."""

    @property
    def facts(self) -> DeviceFacts: ...

    def attach(self, host: UInt8) -> None:
        """Names the memory of the host tier, [host_pages, page_bytes]. Once, before the first step that moves pages."""

    def step(self, batch: Batch) -> StepResult: ...

    def close(self) -> None: ...
