"""One running program: its fiber, the system calls it makes, and how it ends."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from cadenza.kernel.limits import HEAVY_SLICES, SLICE_CALLS
from cadenza.kernel.wasm.fiber_unsafe import Fiber, Import, Step
from cadenza.kernel.wasm.heavy import HeavyRun
from cadenza.kernel.wasm.lower_unsafe import Failure
from cadenza.kernel.wasm.seams import Advance, ExitGuest, Outcome, Suspension
from cadenza.kvfs.errors import CadenzaError

logger = logging.getLogger(__name__)


class Guest:
    """Runs one export of a program, a slice at a time. Everything is called on the event loop's thread.

    `outcome` is set once, when the guest has ended; what it held is given back by then, but for a slice that is running
    on a worker thread, which ends soon after.
    """

    __slots__ = ("__weakref__", "_ended", "_executor", "_fiber", "_fuel", "_fuel_left", "_heavy", "_process", "_ready",
                 "_slices", "_step", "_suspension", "_wake", "outcome")

    def __init__(self, fiber: Fiber, process: Any, wake: Callable[[], None], executor: ThreadPoolExecutor,
                 ended: Callable[[Guest], None], fuel: int) -> None:
        """`process` is handed to every handler first. `wake` is called when `advance` should be, after BLOCKED;
        `ended` when the fiber is given up. `fuel`: what the fiber was given."""
        self.outcome: Outcome | None = None
        self._fiber, self._process, self._wake = fiber, process, wake
        self._executor, self._ended, self._fuel = executor, ended, fuel
        fiber.serve = self._serve
        self._suspension: Suspension | None = None
        self._ready = False                  # the suspension has its answer
        self._heavy: HeavyRun | None = None
        self._step: Step | None = None       # how the worker thread's last slice ended
        self._slices = 0                     # full slices in a row
        self._fuel_left = fuel

    def advance(self) -> Advance:
        """Runs the guest until it blocks, has had its slice, or ends. Never blocks longer than a slice of fuel and
        SLICE_CALLS system calls."""
        if self._heavy is not None and self.outcome is None:
            return Advance.BLOCKED
        fiber = self._fiber
        fiber.calls_left = SLICE_CALLS
        while self.outcome is None:
            if fiber.call is None:
                step, self._step = self._step or fiber.poll(), None
                if step is Step.SPENT:
                    return self._spent()
                if step is Step.DONE:
                    self._end(self._result())
            elif self._suspension is not None:
                if not self._ready:
                    return Advance.BLOCKED
                self._serve()
            elif fiber.calls_left:
                fiber.calls_left -= 1
                self._serve()
            else:
                return Advance.READY
        if self._heavy is None:
            fiber.close()                    # a handler asked on the guest's own stack may have ended it
        return Advance.ENDED

    # --- system calls ---
    def _serve(self) -> None:
        """The boundary of system calls: what the handler answers, at once or in the end, or raises, goes to the guest.
        On the event loop's stack, or, for a quick handler, on the guest's."""
        fiber, suspension = self._fiber, self._suspension
        import_ = fiber.call
        assert import_ is not None
        try:
            if suspension is None:
                self._slices = 0
                answer = import_.handler(self._process, *fiber.arguments)
            else:
                self._suspension = None
                answer = suspension.answer()
            if isinstance(answer, Suspension):
                self._suspend(answer)
            elif self.outcome is None:       # the handler may have killed its own guest
                fiber.answer(answer)
        except ExitGuest as end:
            self.kill(end.outcome)
        except CadenzaError as error:
            self._fail(import_, error.errno, error.message)
        except Exception:
            logger.exception("the handler of %s failed", import_.name)
            self._fail(import_, "internal", "the kernel failed in this call; its log says how")

    def _suspend(self, suspension: Suspension) -> None:
        self._ready = False
        suspension.subscribe(self._woken)
        self._suspension = suspension        # not before: a wake from within `subscribe` needs no `advance`
        if self.outcome is not None:
            self._abandon()

    def _woken(self) -> None:
        self._ready = True
        if self._suspension is not None:
            self._wake()

    def _abandon(self) -> None:
        suspension, self._suspension = self._suspension, None
        if suspension is not None:
            suspension.abandon()

    def _fail(self, import_: Import, errno: str, message: str) -> None:
        """The error goes to the guest if the function can answer one; else it ends the guest."""
        if self.outcome is None and import_.fail is not None:
            self._fiber.answer(Failure(errno, message))
        else:
            self.kill(Outcome("trapped", 1, f"{import_.name}: {message}"))

    # --- computing ---
    def _spent(self) -> Advance:
        self._slices += 1
        if self._slices < HEAVY_SLICES:
            return Advance.READY
        self._fuel_left = self._fiber.fuel_left
        self._heavy = HeavyRun(self._executor, self._fiber, self._resumed)
        return Advance.BLOCKED

    def _resumed(self, step: Step) -> None:
        if self.outcome is None:
            self._heavy, self._step, self._slices = None, step, 0
            self._wake()

    @property
    def fuel_used(self) -> int:
        """Instructions so far; while it computes on a worker thread, those before."""
        if self.outcome is None and self._heavy is None:
            self._fuel_left = self._fiber.fuel_left
        return self._fuel - self._fuel_left

    # --- ending ---
    def _result(self) -> Outcome:
        fiber = self._fiber
        if not fiber.error:
            assert fiber.value is not None
            return Outcome("finished") if fiber.value.name == "ok" else Outcome("failed", 1, fiber.value.value)
        if fiber.fuel_left == 0:
            return Outcome("cpu-limit", 1, f"used all of its {self._fuel} instructions (cpu_fuel)")
        reason = trap_reason(fiber.error)
        if not fiber.started and _MEMORY.search(fiber.error):
            return Outcome("memory-limit", 1, f"could not start within memory_bytes: {reason}")
        if any(map(_OUT_OF_MEMORY.search, _FRAME.findall(fiber.error))):
            return Outcome("memory-limit", 1, f"needed more than memory_bytes: {reason}")
        return Outcome("trapped", 1, reason + _GAVE_UP if "unreachable" in reason else reason)

    def kill(self, outcome: Outcome) -> None:
        """Ends the guest wherever it is. Without effect on one that has ended; `wake` is not called."""
        if self.outcome is None:
            self._end(outcome)

    def _end(self, outcome: Outcome) -> None:
        self.fuel_used  # noqa: B018 - keeps the last figure
        self.outcome = outcome
        self._abandon()
        if self._heavy is not None:
            self._heavy.kill()
        elif not self._fiber.serving:        # else `advance` closes it: nobody stands on its stack then
            self._fiber.close()
        self._ended(self)

    def close(self) -> None:
        """Kills it if it is alive. Idempotent."""
        self.kill(Outcome("killed", 1, "closed"))

    def __enter__(self) -> Guest:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


_MEMORY = re.compile("memory|resource limit")
# Where programs of C (sdk/c), Rust, Zig and C++ end that are denied memory: a denial as such is seen by nobody else.
_OUT_OF_MEMORY = re.compile(r"out_?of_?memory|handle_alloc_error|rust_oom|__rg_oom|bad_alloc", re.IGNORECASE)
_GAVE_UP = "; it gave up by itself, as many programs do that need more than memory_bytes"
_FRAME = re.compile(r"^\s+\d+:\s+0x[0-9a-f]+ - (.+)$", re.MULTILINE)
_NAMED_FRAMES = 4


def trap_reason(error: str) -> str:
    """Wasmtime's reason in one line, and the functions it happened in, innermost first, if they have names."""
    reason = error.rpartition("Caused by:")[2].strip().splitlines()[-1].strip().removeprefix("wasm trap: ")
    reason = re.sub(r"^\d+: ", "", reason).removeprefix("wasm trap: ")
    names = [name for name in _FRAME.findall(error) if "<wasm function" not in name][:_NAMED_FRAMES]
    return f"{reason} (in {' < '.join(names)})" if names else reason
