"""How the kernel reaches a device without waiting for it: submit now, be called back on the event loop later."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

from cadenza.kernel.device.batch import Batch, DeviceFacts, StepResult, UInt8

Deliver = Callable[[StepResult], None]


class DeviceLink(Protocol):
    """Steps are answered in the order in which they were submitted."""

    @property
    def facts(self) -> DeviceFacts: ...

    @property
    def host(self) -> UInt8:
        """The host tier, [host_pages, page_bytes]. Who may touch which page, and when, the kernel keeps the books of: a
        page that a step under way names is the device's until that step is answered."""

    def connect(self, deliver: Deliver, lost: Callable[[str], None]) -> None:
        """Names who is called on the event loop: `deliver` with each result, `lost` once if the device is gone."""

    def submit(self, batch: Batch) -> None:
        """Copies the batch out and returns at once. Raises DeviceLost if the device is gone."""

    def give_masks(self, masks: Sequence[tuple[int, UInt8]]) -> None:
        """What the `late_masks` of the oldest step under way are, all of them, by their index. Once for each step that
        has any; only where `facts.late_masks`."""

    async def load_adapter(self, slot: int, directory: Path) -> None:
        """Returns when steps may name the slot, which none does meanwhile. Raises what the device raised, Unsupported
        if it takes no adapters, DeviceLost."""

    def drop_adapter(self, slot: int) -> None:
        """After the steps that have been submitted; no later one names it until it is loaded anew."""

    async def restart(self) -> None:
        """After `lost`: builds the device anew, empty, but with the host tier as it was. Steps may be submitted then.
        Raises what building it raised, Unsupported where that cannot be."""

    def close(self) -> None: ...
