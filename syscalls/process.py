"""Interface `process`: who am I, what was I given, whom do I start, how do I end."""

from __future__ import annotations

import secrets

from cadenza.kernel.kernel import Kernel
from cadenza.kernel.language import check_text
from cadenza.kernel.process import EndWatcher, ExitStatus, Process, Signals
from cadenza.kernel.wasm.seams import ExitGuest, quick
from cadenza.kernel.wasm.seams import Outcome as GuestOutcome
from cadenza.kvfs.errors import NotReady


class ProcessCalls:
    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel

    @quick
    def pid(self, process: Process) -> int:
        return process.pid

    def arguments(self, process: Process) -> str:
        return process.arguments

    def payload(self, process: Process) -> list[tuple[str, str]]:
        return process.payload

    @quick
    def entropy(self, process: Process) -> int:
        return secrets.randbits(64)

    def log(self, process: Process, to: str, text: str) -> None:
        check_text(text)
        process.write(to, text)

    def exit(self, process: Process, code: int) -> None:
        raise ExitGuest(GuestOutcome("exited", code, f"exit code {code}" if code else ""))

    def spawn(self, process: Process, image: str, arguments: str, detached: bool) -> int:
        child = self._kernel.spawn(process.owner, image, arguments, detached=detached, limits=process.limits,
                                   priority=process.priority, parent=process)
        return child.pid

    def wait_child(self, process: Process, pid: int) -> int:
        process.handles.ensure_room()
        return process.handles.add(self._kernel.process(process.owner, pid).watch_end())

    @quick
    def take_exit(self, process: Process, child: int) -> ExitStatus:
        watcher = process.handles.get(child, EndWatcher)
        if not watcher.ready:
            raise NotReady("the child has not ended; wait for the handle first")
        return watcher.take()

    def kill(self, process: Process, pid: int, signal: str) -> None:
        if pid == process.pid and (signal == "kill" or (signal != "user" and not process.signals.opened)):
            raise ExitGuest(GuestOutcome("killed", 0, f"ended itself by signal {signal!r}"))
        self._kernel.signal(process.owner, pid, signal)

    def signals(self, process: Process) -> int:
        process.handles.ensure_room()
        process.signals.opened = True
        return process.handles.add(process.signals)

    @quick
    def take_signal(self, process: Process, signals: int) -> str | None:
        return process.handles.get(signals, Signals).take()

    @quick
    def mark(self, process: Process, kind: str, track: str, text: str) -> None:
        process.trace.mark(kind, track, text)
