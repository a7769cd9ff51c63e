"""Which rotary positions a model uses, in either spelling of `config.json`: no torch.

transformers 5 writes one object, `rope_parameters`; before it there were `rope_theta` and `rope_scaling`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cadenza.kernel.model.settings import Settings
from cadenza.kvfs.errors import Invalid, Unsupported

DEFAULT_THETA = 10_000.0
KINDS = ("default", "linear", "llama3")


@dataclass(frozen=True, slots=True)
class RopeConfig:
    """`kind` is one of KINDS; `factor` is of linear and llama3, the last three of llama3 only."""

    theta: float = DEFAULT_THETA
    kind: str = "default"
    factor: float = 1.0
    low_frequency_factor: float = 1.0
    high_frequency_factor: float = 4.0
    original_context_tokens: int = 8192

    @classmethod
    def from_settings(cls, settings: Settings) -> RopeConfig:
        """Raises Unsupported for a kind that is not of KINDS, by its name; Invalid for a malformed field."""
        raw = _object(settings, "rope_parameters") or _object(settings, "rope_scaling") or {}
        rope = Settings({"rope_theta": settings.raw.get("rope_theta"), **raw}, f"{settings.name}: rope_parameters")
        kind = rope.text("rope_type", rope.text("type", "default"))
        if kind not in KINDS:
            raise Unsupported(f"{settings.name}: rope type {kind!r} is not supported; {', '.join(KINDS)} are")
        if rope.positive("partial_rotary_factor", settings.positive("partial_rotary_factor", 1.0)) != 1.0:
            raise Unsupported(f"{settings.name}: partial_rotary_factor is not supported; whole heads are rotated")
        return _read(rope, kind)


def _object(settings: Settings, field: str) -> Mapping[str, Any] | None:
    value = settings.raw.get(field)
    if value is not None and not isinstance(value, Mapping):
        raise Invalid(f"{settings.name}: {field} is {value!r}; it must be an object or null", field=field)
    return value


def _read(rope: Settings, kind: str) -> RopeConfig:
    theta = rope.positive("rope_theta", DEFAULT_THETA)
    if kind == "default":
        return RopeConfig(theta)
    if kind == "linear":
        return RopeConfig(theta, kind, rope.positive("factor"))
    low, high = rope.positive("low_freq_factor"), rope.positive("high_freq_factor")
    if low >= high:
        fault = f"{rope.name}: low_freq_factor {low} must be below high_freq_factor {high}"
        raise Invalid(fault, field="low_freq_factor")
    original = rope.whole("original_max_position_embeddings")
    return RopeConfig(theta, kind, rope.positive("factor"), low, high, original)
