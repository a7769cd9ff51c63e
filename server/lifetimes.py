"""Processes bound to their client: killed once no client has been attached to them for some seconds."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cadenza.kvfs.errors import NotFound
from cadenza.server.limits import BOUND_SECONDS

if TYPE_CHECKING:
    from cadenza.kernel.kernel import Kernel

log = logging.getLogger(__name__)

Name = tuple[str, int]                      # owner, pid


@dataclass(slots=True)
class _Bond:
    clients: int = 0
    timer: asyncio.TimerHandle | None = None


class Lifetimes:
    """The time runs from the spawn, and from each time that the last client leaves. A client that comes back within
    it finds its process alive."""

    def __init__(self, kernel: Kernel, seconds: float = BOUND_SECONDS) -> None:
        self._kernel = kernel
        self._seconds = seconds
        self._bonds: dict[Name, _Bond] = {}

    def __len__(self) -> int:
        return len(self._bonds)

    def bind(self, owner: str, pid: int) -> None:
        """From now on this process needs a client."""
        bond = self._bonds[(owner, pid)] = _Bond()
        self._start(bond, (owner, pid))

    @contextmanager
    def attached(self, owner: str, pid: int) -> Iterator[None]:
        """A client is there. For a process that is not bound this does nothing."""
        bond = self._bonds.get((owner, pid))
        if bond is None:
            yield
            return
        if bond.timer is not None:
            bond.timer.cancel()
        bond.clients += 1
        try:
            yield
        finally:
            bond.clients -= 1
            if not bond.clients:
                self._start(bond, (owner, pid))

    def close(self) -> None:
        """Stops every timer. Idempotent."""
        for bond in self._bonds.values():
            if bond.timer is not None:
                bond.timer.cancel()
        self._bonds.clear()

    def _start(self, bond: _Bond, name: Name) -> None:
        bond.timer = asyncio.get_running_loop().call_later(self._seconds, self._end, name)

    def _end(self, name: Name) -> None:
        self._bonds.pop(name, None)
        owner, pid = name
        try:
            process = self._kernel.process(owner, pid)
        except NotFound:
            return                          # it ended, and is forgotten
        if process.exit is None:
            log.info("process %d of %s is killed: its client is gone", pid, owner)
            process.kill("killed", f"its client has been gone for {self._seconds:g} s")
