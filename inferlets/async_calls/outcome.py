"""What came of a turn, whichever agent took it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, Protocol

from cadenza import Context

from .executor import Job

Finish = Literal["ended", "stuck", "length"]
"""The model ended its turn, waited for nothing (a trap with nothing pending), or ran out of tokens."""


@dataclass
class Outcome:
    """`text`: what the model said outside of calls. `jobs`: the calls, in the order in which they were made."""

    text: str = ""
    finish: Finish = "ended"
    jobs: list[Job] = field(default_factory=list)
    interrupts: int = 0
    traps: int = 0
    tokens: int = 0          # sampled
    turns: int = 1           # in which the model spoke
    seconds: float = 0.0


class Agent(Protocol):
    """Lets the model work with tools. `manner` is how a system message says so to the bundled model."""

    manner: str

    async def act(self, context: Context) -> Outcome:
        """From the context as it is to the end of the assistant's turn."""
