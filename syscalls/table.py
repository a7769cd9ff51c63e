"""Every system call by its WIT name."""

from __future__ import annotations

from pathlib import Path

from cadenza.kernel.kernel import Kernel
from cadenza.kernel.wasm.seams import Handler, Handlers
from cadenza.syscalls.channel import ChannelCalls
from cadenza.syscalls.events import EventCalls
from cadenza.syscalls.grammar import GrammarCalls
from cadenza.syscalls.inference import InferenceCalls
from cadenza.syscalls.kv import KvCalls
from cadenza.syscalls.model import ModelCalls
from cadenza.syscalls.process import ProcessCalls
from cadenza.syscalls.tools import ToolCalls

WIT = Path(__file__).parent / "wit"      # the folder of the ABI's text


def abi() -> str:
    """The text of the ABI."""
    return (WIT / "kernel.wit").read_text()


def handlers(kernel: Kernel) -> Handlers:
    """What the Wasm runtime is given: a public method `take_tokens` answers `take-tokens`."""
    return {
        "process": _by_wit_name(ProcessCalls(kernel)),
        "events": _by_wit_name(EventCalls()),
        "model": _by_wit_name(ModelCalls(kernel)),
        "kv": _by_wit_name(KvCalls(kernel)),
        "grammar": _by_wit_name(GrammarCalls(kernel)),
        "inference": _by_wit_name(InferenceCalls(kernel)),
        "channel": _by_wit_name(ChannelCalls(kernel)),
        "tools": _by_wit_name(ToolCalls(kernel)),
    }


def _by_wit_name(calls: object) -> dict[str, Handler]:
    names = [name for name in dir(type(calls)) if not name.startswith("_")]
    return {name.replace("_", "-"): getattr(calls, name) for name in names}
