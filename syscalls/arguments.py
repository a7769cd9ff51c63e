"""The argument fetchers: the only place where what a guest sent is read. Everything is checked and copied here."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np

from cadenza.kernel.device.batch import (
    PROBE_ENTROPY,
    PROBE_HIDDEN,
    PROBE_LOG_PROBABILITIES,
    PROBE_LOGITS,
    PROBE_TOP,
    Int32,
    UInt8,
)
from cadenza.kernel.device.penalties import OFF
from cadenza.kernel.guide import State
from cadenza.kernel.inference import Inference
from cadenza.kernel.limits import ARGUMENTS_BYTES, MESSAGE_BYTES, RANGE_TOKENS, TOOL_SECONDS, TOPIC_BYTES
from cadenza.kernel.manifest import TOOL
from cadenza.kernel.passes import Probe
from cadenza.kernel.process import Process
from cadenza.kernel.sampler import Bias, Penalties, Sampler
from cadenza.kernel.wasm.seams import Case
from cadenza.kvfs.errors import Invalid, LimitExceeded
from cadenza.kvfs.file import File

PROBE_KINDS = {"top": PROBE_TOP, "log-probabilities": PROBE_LOG_PROBABILITIES, "entropy": PROBE_ENTROPY,
               "logits": PROBE_LOGITS, "hidden": PROBE_HIDDEN}
LARGEST = 2**31 - 1


def fetch_int32(numbers: Any, field: str) -> Int32:
    """list<u32> as int32. Raises Invalid for what does not fit: no token, position or offset is so large."""
    array = np.asarray(numbers)
    if len(array) and int(array.max()) > LARGEST:
        raise Invalid(f"{field} holds {int(array.max())}; the largest number that makes sense is {LARGEST}", field)
    return array.astype(np.int32)


def fetch_files(process: Process, record: Any) -> tuple[File, list[File]]:
    """`file`, opened to append, and `reads`, opened to read."""
    return process.files.get(record.file, "append"), [process.files.get(int(d), "read") for d in record.reads]


def fetch_sampler(record: Any) -> Sampler:
    return Sampler(record.temperature, record.top_k, record.top_p, record.min_p, record.seed,
                   fetch_bias(record.bias), fetch_penalties(record.penalties))


def fetch_bias(records: Sequence[Any]) -> Bias | None:
    if not records:
        return None
    values = np.array([record.value for record in records], np.float32)
    return Bias(fetch_int32([record.token for record in records], "bias"), values)


def fetch_penalties(record: Any) -> Penalties | None:
    """None if they are off."""
    if record is None or (record.repetition, record.frequency, record.presence) == OFF:
        return None
    return Penalties(record.repetition, record.frequency, record.presence, min(record.window, LARGEST))


def fetch_mask(inference: Inference, record: Any) -> UInt8 | None:
    if record is None:
        return None
    return inference.mask(fetch_int32(record.tokens, "mask"), allowed=record.allowed)


def fetch_states(inference: Inference, records: Sequence[Any]) -> list[State]:
    return [State(fetch_mask(inference, record.mask), {move.token: move.state for move in record.moves},
                  record.otherwise, record.open)
            for record in records]


def fetch_visible(records: Sequence[Any]) -> Int32:
    """[·, 3]: row, first, count."""
    numbers = [(r.row, r.first, r.count) for r in records]
    return fetch_int32(numbers, "visible").reshape(-1, 3) if numbers else np.zeros((0, 3), np.int32)


def fetch_probe(case: Case) -> Probe:
    kind = PROBE_KINDS[case.name]
    if kind == PROBE_TOP:
        return Probe(kind, top=case.value)
    if kind == PROBE_LOG_PROBABILITIES:
        return Probe(kind, tokens=fetch_int32(case.value, "probes").tolist())
    return Probe(kind)


def fetch_message(text: str) -> str:
    size = len(text.encode(errors="replace"))
    if size > MESSAGE_BYTES:
        raise Invalid(f"the message has {size} bytes; at most {MESSAGE_BYTES} go in one: send it in parts", "text")
    return text


def fetch_name(name: str) -> str:
    if not 1 <= len(name.encode(errors="replace")) <= TOPIC_BYTES:
        raise Invalid(f"a name has 1 to {TOPIC_BYTES} bytes", "name")
    return name


def fetch_user(user: str) -> str:
    """Of anybody: whether there is such a user is not told."""
    if len(user.encode(errors="replace")) > TOPIC_BYTES:
        raise Invalid(f"the name of a user has at most {TOPIC_BYTES} bytes", "user")
    return user


def fetch_ranges(records: Sequence[Any]) -> list[tuple[int, int]]:
    """(first, count) of each."""
    return [(record.first, record.count) for record in records]


def fetch_range(file: File, record: Any) -> tuple[int, int]:
    """A range of the tokens of `file`. Raises Invalid past its end, LimitExceeded for too many."""
    if record.first + record.count > len(file):
        raise Invalid(f"tokens {record.first} to {record.first + record.count} of {file!r}: its offsets end at "
                      f"{len(file)}", "range")
    if record.count > RANGE_TOKENS:
        raise LimitExceeded(f"{record.count} tokens at once; at most {RANGE_TOKENS}: ask in parts", "range_tokens")
    return record.first, record.count


def fetch_tool(name: str) -> str:
    if not TOOL.fullmatch(name) or name.endswith("*"):
        raise Invalid(f"{name[:200]!r} is no tool: its name is SERVER.TOOL", "name")
    return name


def fetch_object(text: str) -> dict[str, Any]:
    """What a tool is called with: a JSON object of at most ARGUMENTS_BYTES."""
    if len(text.encode(errors="replace")) > ARGUMENTS_BYTES:
        raise Invalid(f"the arguments have over {ARGUMENTS_BYTES} bytes", "arguments")
    try:
        given = json.loads(text)
    except (ValueError, RecursionError) as fault:
        raise Invalid(f"the arguments are not JSON: {fault}", "arguments") from None
    if not isinstance(given, dict):
        raise Invalid("the arguments must be a JSON object, as {\"city\": \"…\"}", "arguments")
    return given


def fetch_timeout(nanoseconds: int | None) -> float:
    """In seconds; TOOL_SECONDS if there is none."""
    seconds = TOOL_SECONDS if nanoseconds is None else nanoseconds * 1e-9
    if seconds > TOOL_SECONDS:
        raise Invalid(f"a timeout of {seconds:g} s; a call may take at most {TOOL_SECONDS:g} s", "timeout-ns")
    return seconds
