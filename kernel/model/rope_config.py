"""Which rotary positions a model uses, in either spelling of `config.json`: no torch.

transformers 5 writes one object, `rope_parameters`; before it there were `rope_theta` and `rope_scaling`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cadenza.kernel.model.settings import Settings
from cadenza.kvfs.errors import Invalid, Unsupported

DEFAULT_THETA = 10_000.0
KINDS = ("default", "linear", "llama3", "yarn", "longrope")
# Of `rope_parameters`, what is read; anything else is refused by name.
FIELDS = frozenset((
    "rope_type", "type", "rope_theta", "partial_rotary_factor", "factor", "low_freq_factor", "high_freq_factor",
    "original_max_position_embeddings", "attention_factor", "mscale", "mscale_all_dim", "beta_fast", "beta_slow",
    "truncate", "short_factor", "long_factor",
))  # fmt: skip


@dataclass(frozen=True, slots=True)
class RopeConfig:
    """`kind` is one of KINDS; `factor` is of linear, llama3 and yarn, the next three of llama3 (the last of yarn too).

    Of longrope only the short factors are used, so its context is the original one: the long ones would be for whole
    sequences, and keys that are kept cannot know how long theirs will be.
    """

    theta: float = DEFAULT_THETA
    kind: str = "default"
    factor: float = 1.0
    low_frequency_factor: float = 1.0
    high_frequency_factor: float = 4.0
    original_context_tokens: int = 8192
    rotated: float = 1.0                       # the share of a head's values that is rotated, from the first on
    scale: float = 1.0                         # of cosine and sine
    beta_fast: float = 32.0                    # yarn: turns over the original context, from which on nothing is scaled
    beta_slow: float = 1.0                     # yarn: turns up to which all is
    truncated: bool = True                     # yarn: these bounds at whole pairs
    pair_factors: tuple[float, ...] = ()       # longrope: a divisor for each pair of values

    @classmethod
    def from_settings(cls, settings: Settings, otherwise: Mapping[str, Any] | None = None) -> RopeConfig:
        """`otherwise`: fields that the family takes where none are given. Raises as `from_object` does."""
        raw = _object(settings, "rope_parameters") or _object(settings, "rope_scaling") or {}
        top = {name: settings.raw.get(name) for name in ("rope_theta", "partial_rotary_factor")}
        return cls.from_object(settings, {**top, **_without_nulls(raw)}, otherwise or {})

    @classmethod
    def from_object(cls, settings: Settings, raw: Mapping[str, Any], otherwise: Mapping[str, Any]) -> RopeConfig:
        """Raises Unsupported for a kind that is not of KINDS or a field that is not known, by its name; Invalid for a
        malformed one."""
        rope = Settings({**otherwise, **_without_nulls(raw)}, f"{settings.name}: rope_parameters")
        kind = rope.text("rope_type", rope.text("type", "default"))
        kind = "longrope" if kind == "su" else kind              # as the first of Phi-3's directories call it
        if kind not in KINDS:
            raise Unsupported(f"{settings.name}: rope type {kind!r} is not supported; {', '.join(KINDS)} are")
        unknown = sorted(rope.raw.keys() - FIELDS)
        if unknown:
            raise Unsupported(f"{rope.name}: {unknown[0]} is not known; what it means would be passed over")
        rotated = rope.positive("partial_rotary_factor", 1.0)
        if rotated > 1:
            raise Invalid(f"{rope.name}: partial_rotary_factor is {rotated}; at most 1 makes sense",
                          field="partial_rotary_factor")
        return cls(theta=rope.positive("rope_theta", DEFAULT_THETA), kind=kind, rotated=rotated,
                   **_READERS[kind](rope, settings))


def rotated_width(config: RopeConfig, head_dim: int) -> int:
    """How many of a head's values are rotated."""
    return int(head_dim * config.rotated)


def _object(settings: Settings, field: str) -> Mapping[str, Any] | None:
    value = settings.raw.get(field)
    if value is not None and not isinstance(value, Mapping):
        raise Invalid(f"{settings.name}: {field} is {value!r}; it must be an object or null", field=field)
    return value


def _without_nulls(raw: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in raw.items() if value is not None}


def _default(rope: Settings, settings: Settings) -> dict[str, Any]:
    return {}


def _linear(rope: Settings, settings: Settings) -> dict[str, Any]:
    return {"factor": rope.positive("factor")}


def _llama3(rope: Settings, settings: Settings) -> dict[str, Any]:
    low, high = rope.positive("low_freq_factor"), rope.positive("high_freq_factor")
    if low >= high:
        fault = f"{rope.name}: low_freq_factor {low} must be below high_freq_factor {high}"
        raise Invalid(fault, field="low_freq_factor")
    return {"factor": rope.positive("factor"), "low_frequency_factor": low, "high_frequency_factor": high,
            "original_context_tokens": rope.whole("original_max_position_embeddings")}


def _yarn(rope: Settings, settings: Settings) -> dict[str, Any]:
    """The scale, when not given, is 0.1 ln(factor) + 1, or such a quotient by the two `mscale`."""
    factor = rope.positive("factor")
    original = rope.whole("original_max_position_embeddings", settings.whole("max_position_embeddings"))

    def scale(weight: float) -> float:
        return 0.1 * weight * math.log(factor) + 1.0 if factor > 1 else 1.0

    both = rope.raw.get("mscale") and rope.raw.get("mscale_all_dim")
    ours = scale(rope.positive("mscale")) / scale(rope.positive("mscale_all_dim")) if both else scale(1.0)
    return {"factor": factor, "original_context_tokens": original, "scale": rope.positive("attention_factor", ours),
            "beta_fast": rope.positive("beta_fast", 32.0), "beta_slow": rope.positive("beta_slow", 1.0),
            "truncated": rope.flag("truncate", True)}


def _longrope(rope: Settings, settings: Settings) -> dict[str, Any]:
    """The scale, when not given, is √(1 + ln(factor) / ln(original context))."""
    original = rope.whole("original_max_position_embeddings", settings.whole("original_max_position_embeddings", 4096))
    factor = rope.positive("factor", settings.whole("max_position_embeddings") / original)
    ours = math.sqrt(1 + math.log(factor) / math.log(original)) if factor > 1 else 1.0
    short = rope.raw.get("short_factor")
    if not isinstance(short, list) or not all(isinstance(x, int | float) and 0 < x < math.inf for x in short):
        raise Invalid(f"{rope.name}: short_factor is {short!r}; it must be a list of numbers", field="short_factor")
    return {"original_context_tokens": original, "scale": rope.positive("attention_factor", ours),
            "pair_factors": tuple(map(float, short))}


_READERS = {"default": _default, "linear": _linear, "llama3": _llama3, "yarn": _yarn, "longrope": _longrope}
