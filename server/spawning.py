"""What a spawn is asked for, checked: arguments and limits."""

from __future__ import annotations

import json
import math
from dataclasses import fields, replace

from cadenza.kernel.limits import ARGUMENTS_BYTES, ProcessLimits
from cadenza.kvfs.errors import Invalid, LimitExceeded
from cadenza.sdk.proto.cadenza.v1 import processes_pb2 as pb


def arguments_of(text: str) -> str:
    """The arguments, "{}" for none. Raises LimitExceeded, and Invalid for anything but a JSON object."""
    size = len(text.encode())
    if size > ARGUMENTS_BYTES:
        raise LimitExceeded(
            f"the arguments have {size} bytes, the limit is {ARGUMENTS_BYTES}; send more as messages", "arguments_bytes"
        )
    if not text:
        return "{}"
    try:
        value = json.loads(text, parse_constant=_refuse_constant)
    except RecursionError as error:
        raise Invalid("arguments are nested too deeply", "arguments") from error
    except ValueError as error:
        raise Invalid(f"arguments are not JSON: {error}", "arguments") from error
    if not isinstance(value, dict):
        raise Invalid(f"arguments must be a JSON object, not {type(value).__name__}", "arguments")
    return text


def limits_of(asked: pb.Limits, most: ProcessLimits) -> ProcessLimits:
    """`most`, with what was asked for in its place. Raises Invalid for what is not above 0, LimitExceeded past
    `most`."""
    chosen: dict[str, float] = {}
    for field in fields(ProcessLimits):
        if not asked.HasField(field.name):  # type: ignore[arg-type]  # the .proto has the same fields
            continue
        value, bound = getattr(asked, field.name), getattr(most, field.name)
        if not value > 0 or not math.isfinite(value):
            raise Invalid(f"limit {field.name} is {value}, it must be above 0", f"limits.{field.name}")
        if value > bound:
            raise LimitExceeded(f"limit {field.name} is {value}, the operator allows {bound} at most", field.name)
        chosen[field.name] = value
    return replace(most, **chosen)  # type: ignore[arg-type]  # names and types are those of the .proto


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not a number of JSON")
