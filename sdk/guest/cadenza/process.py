"""This program as a process, and its children."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Literal

from wit_world.imports import process as kernel

from .errors import checked
from .events import Handle

Signal = Literal["terminate", "kill", "interrupt", "user"]
Ending = Literal[
    "finished", "failed", "exited", "trapped", "killed", "cpu-limit", "wall-limit", "memory-limit", "output-limit"
]

SIGNALS: dict[Signal, kernel.Signal] = {
    "terminate": kernel.Signal.TERMINATE,
    "kill": kernel.Signal.KILL,
    "interrupt": kernel.Signal.INTERRUPT,
    "user": kernel.Signal.USER,
}
SIGNAL_NAMES: dict[kernel.Signal, Signal] = {signal: name for name, signal in SIGNALS.items()}
ENDINGS: dict[kernel.Ending, Ending] = {
    kernel.Ending.FINISHED: "finished",
    kernel.Ending.FAILED: "failed",
    kernel.Ending.EXITED: "exited",
    kernel.Ending.TRAPPED: "trapped",
    kernel.Ending.KILLED: "killed",
    kernel.Ending.CPU_LIMIT: "cpu-limit",
    kernel.Ending.WALL_LIMIT: "wall-limit",
    kernel.Ending.MEMORY_LIMIT: "memory-limit",
    kernel.Ending.OUTPUT_LIMIT: "output-limit",
}

_spawn = checked(kernel.spawn)
_wait_child = checked(kernel.wait_child)
_take_exit = checked(kernel.take_exit)
_kill = checked(kernel.kill)
_signals = checked(kernel.signals)
_take_signal = checked(kernel.take_signal)


@dataclass(frozen=True)
class ExitStatus:
    """How a process ended; `code` is 0 only when all was well, `message` says why it was not."""

    ending: Ending
    code: int
    message: str


@dataclass(frozen=True)
class Child:
    """A process that this one spawned."""

    pid: int

    async def wait(self) -> ExitStatus:
        """How it ended, when it has. Cancelled, the child goes on."""
        handle = Handle(_wait_child(self.pid))
        try:
            await handle
            status = _take_exit(handle.number)
        finally:
            handle.close()
        return ExitStatus(ENDINGS[status.ending], status.code, status.message)

    def kill(self, signal: Signal = "terminate") -> None:
        """Sends it a signal."""
        kill(self.pid, signal)


def pid() -> int:
    """The number of this process."""
    return kernel.pid()


def spawn(image: str, arguments: Mapping[str, object] | None = None, *, detached: bool = False) -> Child:
    """Starts an image of the same user, by name or digest. It outlives this process only when `detached`.

    Raises NotFound, LimitExceeded. Never blocks.
    """
    return Child(_spawn(image, json.dumps(dict(arguments or {})), detached))


def kill(pid: int, signal: Signal = "terminate") -> None:
    """Sends a signal to a process of the same user. Raises NotFound."""
    _kill(pid, SIGNALS[signal])


async def signals() -> AsyncIterator[Signal]:
    """The signals sent to this process, as they come.

    Until it is first iterated `terminate` and `interrupt` end the process; from then on they only come here. `kill`
    never does.
    """
    handle = Handle(_signals())
    while True:
        await handle
        signal = _take_signal(handle.number)
        if signal is not None:
            yield SIGNAL_NAMES[signal]
