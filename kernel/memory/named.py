"""Every memory policy by its name: what an operator can choose from, and what benchmarks compare."""

from __future__ import annotations

from cadenza.kernel.memory.foresight import Foresight
from cadenza.kernel.memory.min_waste import MinWaste
from cadenza.kernel.memory.policy import MemoryPolicy
from cadenza.kernel.memory.time_to_live import TimeToLive
from cadenza.kernel.memory.unconditional import Discard, Preserve, Swap
from cadenza.kvfs.errors import Invalid

_ALL: tuple[MemoryPolicy, ...] = (
    Foresight(), MinWaste(), MinWaste(oracle=True), TimeToLive(), Swap(), Preserve(), Discard(keeps_place=True),
    Discard(keeps_place=False),
)  # fmt: skip
POLICIES = {policy.name: policy for policy in _ALL}


def memory_policy(name: str) -> MemoryPolicy:
    """Raises Invalid, with the names that there are."""
    if name not in POLICIES:
        raise Invalid(f"no memory policy {name!r}: there are {', '.join(POLICIES)}", "memory_policy")
    return POLICIES[name]
