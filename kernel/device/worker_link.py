"""The link to a device in a process of its own: see worker.py for what is said, shared_memory.py for what is shared."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

from cadenza.kernel.device.batch import Batch, DeviceFacts, UInt8
from cadenza.kernel.device.kinds import DeviceConfig, Progress, to_json
from cadenza.kernel.device.link import Deliver
from cadenza.kernel.device.shared_memory import SLOTS, Ring, host_tier, shared_bytes
from cadenza.kernel.device.worker import PACKET_BYTES
from cadenza.kvfs import errors
from cadenza.kvfs.errors import CadenzaError, DeviceLost, Unsupported

# What torch's threads and allocator read when they are loaded: idle threads sleep, large buffers are kept.
ENVIRONMENT = {"OMP_WAIT_POLICY": "PASSIVE", "MALLOC_MMAP_THRESHOLD_": str(1 << 30),
               "MALLOC_TRIM_THRESHOLD_": str(4 << 30)}
END_SECONDS = 5.0  # for a worker that is asked to end, or has hung up; then it is killed


class _Worker(NamedTuple):
    process: subprocess.Popen[bytes]
    control: socket.socket
    facts: DeviceFacts


class WorkerLink:
    """Owns the worker process, the socket and the memory shared with it. Made by `start`, ended by `close`. When the
    worker is lost its memory stays: `restart` gives it to another."""

    def __init__(self, config: DeviceConfig, memory: int, worker: _Worker) -> None:
        """`memory`: a descriptor; it is the link's to close, but not if this raises."""
        self.facts = worker.facts
        self.host: UInt8 = host_tier(memory, worker.facts)
        self._config = config
        self._memory = memory
        self._loop = asyncio.get_running_loop()
        self._deliver: Deliver = lambda result: None
        self._lost: Callable[[str], None] = lambda reason: None
        self._loads = 0
        self._loading: dict[int, asyncio.Future[None]] = {}
        self._take(worker)

    @classmethod
    async def start(cls, config: DeviceConfig, progress: Progress = lambda what, fraction: None) -> WorkerLink:
        """Starts a worker and waits until its device is ready; `progress` is called meanwhile.

        Raises what building the device raised, or DeviceLost when the worker died of it.
        """
        memory = os.memfd_create("cadenza-device")
        try:
            async with _starting(config, memory, progress) as worker:
                os.ftruncate(memory, shared_bytes(worker.facts))
                return cls(config, memory, worker)
        except BaseException:
            os.close(memory)
            raise

    async def restart(self) -> None:
        assert self._gone, "the device is there"
        async with _starting(self._config, self._memory) as worker:
            if worker.facts != self.facts:
                raise Unsupported(f"the device came back as another: {worker.facts}, and it was {self.facts}")
            self._take(worker)

    def _take(self, worker: _Worker) -> None:
        """From now on this is the worker."""
        self._ring = Ring(self._memory, self.facts)
        self._process, self._control, _ = worker
        self._submitted = self._delivered = 0
        self._gone = ""
        self._control.send(b"map")
        self._loop.add_reader(self._control, self._receive)

    @property
    def pid(self) -> int:
        """Of the worker."""
        return self._process.pid

    def connect(self, deliver: Deliver, lost: Callable[[str], None]) -> None:
        self._deliver, self._lost = deliver, lost

    def submit(self, batch: Batch) -> None:
        """At most SLOTS steps may be under way."""
        if self._gone:
            raise DeviceLost(f"the device is gone: {self._gone}")
        assert self._submitted - self._delivered < SLOTS, f"{SLOTS} steps are under way, there is no slot for another"
        slot = self._submitted % SLOTS
        self._ring.write_batch(slot, batch)
        self._submitted += 1
        with suppress(BrokenPipeError, ConnectionResetError):  # it died just now: the reader is about to learn it
            self._control.send(bytes((slot,)))

    def give_masks(self, masks: Sequence[tuple[int, UInt8]]) -> None:
        if self._gone:
            return
        slot = self._delivered % SLOTS
        self._ring.write_masks(slot, masks)
        with suppress(BrokenPipeError, ConnectionResetError):
            self._control.send(bytes((slot, 0)))

    async def load_adapter(self, slot: int, directory: Path) -> None:
        if self._gone:
            raise DeviceLost(f"the device is gone: {self._gone}")
        self._loads += 1
        done = self._loading[self._loads] = self._loop.create_future()
        self._ask(load=self._loads, slot=slot, directory=str(directory.absolute()))
        await done

    def drop_adapter(self, slot: int) -> None:
        if not self._gone:
            self._ask(drop=slot)

    def close(self) -> None:
        """Ends the worker. Blocks until it has, seconds at the most. Idempotent; `lost` is not called."""
        if not self._gone:
            self._release("it was closed")
            _end(self._process)
        if self._memory >= 0:
            os.close(self._memory)
            self._memory = -1

    def _receive(self) -> None:
        try:
            packet = self._control.recv(PACKET_BYTES)
        except ConnectionResetError:
            packet = b""
        if not packet:
            self._lose()
            return
        if len(packet) > 1:
            self._end_load(**json.loads(packet))
            return
        slot = self._delivered % SLOTS
        assert packet[0] == slot, f"slot {packet[0]} is answered, {slot} was due"
        result = self._ring.read_result(slot)
        self._delivered += 1
        self._deliver(result)

    def _ask(self, **message: Any) -> None:
        with suppress(BrokenPipeError, ConnectionResetError):
            self._control.send(json.dumps(message).encode())

    def _end_load(self, loaded: int, failed: str = "", message: str = "") -> None:
        done = self._loading.pop(loaded)
        if done.done():
            return                                             # who asked has gone
        if failed:
            done.set_exception(_error(failed, message))
        else:
            done.set_result(None)

    def _lose(self) -> None:
        reason = f"the device process {_ending(self._process)}"
        self._release(reason)
        self._lost(reason)

    def _release(self, reason: str) -> None:
        self._gone = reason
        for done in self._loading.values():
            if not done.done():
                done.set_exception(DeviceLost(f"the device is gone: {reason}"))
        self._loading.clear()
        self._loop.remove_reader(self._control)
        self._control.close()
        self._ring.close()


def _spawn(control: socket.socket, memory: int) -> subprocess.Popen[bytes]:
    """-P: what lies in the working directory is not imported."""
    descriptors = (control.fileno(), memory)
    command = [sys.executable, "-P", "-m", "cadenza.kernel.device.worker", *map(str, descriptors)]
    return subprocess.Popen(command, pass_fds=descriptors, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                            env={**os.environ, **ENVIRONMENT})


@asynccontextmanager
async def _starting(config: DeviceConfig, memory: int, progress: Progress = lambda what, fraction: None
                    ) -> AsyncIterator[_Worker]:
    """A worker whose device is ready, and that waits to be told that `memory` has its size. It is ended if the block
    raises. Raises what building the device raised, DeviceLost when the worker died of it."""
    control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    control.setblocking(False)
    try:
        with theirs:
            process = _spawn(theirs, memory)
        try:
            yield _Worker(process, control, await _boot(process, control, config, progress))
        except BaseException:
            _end(process)
            raise
    except BaseException:
        control.close()
        raise


async def _boot(
    process: subprocess.Popen[bytes], control: socket.socket, config: DeviceConfig, progress: Progress
) -> DeviceFacts:
    loop = asyncio.get_running_loop()
    control.send(to_json(config).encode())
    while packet := await _packet(loop, control):
        message = json.loads(packet)
        if "ready" in message:
            return DeviceFacts(**message["ready"])
        if "failed" in message:
            raise _error(message["failed"], message["message"])
        progress(message["progress"], message["fraction"])
    raise DeviceLost(f"the device process {_ending(process)} before its device was ready")


async def _packet(loop: asyncio.AbstractEventLoop, control: socket.socket) -> bytes:
    """Empty at the end of the stream."""
    try:
        return await loop.sock_recv(control, PACKET_BYTES)
    except ConnectionResetError:
        return b""


def _error(name: str, message: str) -> CadenzaError:
    kind = getattr(errors, name, None)
    if isinstance(kind, type) and issubclass(kind, CadenzaError):
        return kind(message)
    return errors.Internal(message)


def _ending(process: subprocess.Popen[bytes]) -> str:
    """How a process that hung up ended; it is killed if it does not."""
    try:
        code = process.wait(END_SECONDS)
    except subprocess.TimeoutExpired:
        _end(process)
        return "stopped answering and was killed"
    if code < 0:
        return f"was killed by {signal.Signals(-code).name}"
    return f"ended with exit code {code}"


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(END_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
