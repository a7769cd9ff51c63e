"""The process that holds the device: builds it, then steps whenever the doorbell rings, until the kernel hangs up.

    kernel ── settings ──▶ worker        JSON
    kernel ◀─ progress ─── worker        JSON, any number; then `ready` with the facts, or `failed`
    kernel ── map ───────▶ worker        the ring has its size
    kernel ── slot ──────▶ worker        one byte: that slot holds a batch
    kernel ── slot, 0 ───▶ worker        two bytes: its late masks are there; a step waits for them before it samples
    kernel ◀─ slot ─────── worker        one byte: that slot is answered
    kernel ── load, drop ▶ worker        JSON: the number of the request, the adapter's slot, its directory
    kernel ◀─ loaded ───── worker        JSON: the number, and what went wrong, if anything; at any time

Every arrow is one packet of a socket pair; the end of the stream is the end of the worker.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import signal
import socket
import sys
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from cadenza.kernel.device.batch import Device, LateMasking, StepResult, adapting
from cadenza.kernel.device.kinds import from_json
from cadenza.kernel.device.shared_memory import Ring, host_tier
from cadenza.kvfs.errors import CadenzaError

PACKET_BYTES = 64 << 10
MESSAGE_CHARACTERS = 8192

log = logging.getLogger(__name__)


class Packets:
    """What the kernel says, in order but for masks, which a step in hand waits for."""

    def __init__(self, control: socket.socket) -> None:
        self._control = control
        self._waiting: deque[bytes] = deque()
        self._slot = -1                                        # of the step in hand

    def next(self) -> bytes:
        """Empty when the kernel has hung up."""
        packet = self._waiting.popleft() if self._waiting else self._control.recv(PACKET_BYTES)
        if len(packet) == 1:
            self._slot = packet[0]
        return packet

    def wait_for_masks(self) -> None:
        while (packet := self._control.recv(PACKET_BYTES)) != bytes((self._slot, 0)):
            if not packet:
                raise BrokenPipeError("the kernel is gone")
            if len(packet) != 2:                               # else masks of a step that failed before it sampled
                self._waiting.append(packet)


def serve(control: socket.socket, device: Device, ring: Ring) -> None:
    """Answers every slot, in order, until the other end is closed. A step that fails is answered with its error.
    Adapters are loaded beside the steps: no step waits for a disk."""
    packets = Packets(control)
    if isinstance(device, LateMasking):
        device.ask_for_masks(packets.wait_for_masks)
    with ThreadPoolExecutor(1) as loader:
        while packet := packets.next():
            if len(packet) == 1:
                step(device, ring, packet[0])
                control.send(packet)
                continue
            if len(packet) == 2:
                continue
            asked = json.loads(packet)
            if "load" in asked:
                loader.submit(load, control, device, **asked)
            else:
                adapting(device).drop_adapter(asked["drop"])


def load(control: socket.socket, device: Device, load: int, slot: int, directory: str) -> None:
    """One adapter; the kernel is told how that ended."""
    try:
        adapting(device).load_adapter(slot, Path(directory))
    except CadenzaError as error:
        _tell(control, loaded=load, failed=type(error).__name__, message=error.message[:MESSAGE_CHARACTERS])
    except Exception as error:  # as in `step`
        log.exception("an adapter cannot be loaded")
        _tell(control, loaded=load, failed="Internal", message=f"{type(error).__name__}: {error}"[:MESSAGE_CHARACTERS])
    else:
        _tell(control, loaded=load)


def step(device: Device, ring: Ring, slot: int) -> None:
    try:
        ring.write_result(slot, device.step(ring.read_batch(slot)))
    except Exception as error:  # the boundary of this process: the kernel is told, and the device goes on
        number = ring.step(slot)
        log.exception("step %d failed", number)
        ring.write_result(slot, StepResult(number, error=f"{type(error).__name__}: {error}"))


def build(control: socket.socket) -> Device | None:
    """The device that the kernel asks for, or None if that failed: the kernel knows why."""

    def progress(what: str, fraction: float) -> None:
        _tell(control, progress=what, fraction=fraction)

    try:
        device = from_json(control.recv(PACKET_BYTES)).build(progress)
    except CadenzaError as error:
        _tell(control, failed=type(error).__name__, message=error.message[:MESSAGE_CHARACTERS])
        return None
    except Exception as error:  # as above
        log.exception("the device cannot be built")
        _tell(control, failed="Internal", message=f"{type(error).__name__}: {error}"[:MESSAGE_CHARACTERS])
        return None
    late = isinstance(device, LateMasking)
    _tell(control, ready=dataclasses.asdict(device.facts) | {"late_masks": late})
    return device


def main(control_descriptor: int, memory_descriptor: int) -> int:
    """Answers the exit code."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # an interrupt at the terminal is the kernel's to handle
    logging.basicConfig(format="device: %(levelname)s %(message)s")
    with socket.socket(fileno=control_descriptor) as control:
        try:
            device = build(control)
            if device is None:
                return 1
            if control.recv(PACKET_BYTES):
                device.attach(host_tier(memory_descriptor, device.facts))
                serve(control, device, Ring(memory_descriptor, device.facts))
        except (BrokenPipeError, ConnectionResetError):
            return 0  # the kernel is gone
        device.close()
    return 0


def _tell(control: socket.socket, **message: Any) -> None:
    control.send(json.dumps(message).encode())


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), int(sys.argv[2])))
