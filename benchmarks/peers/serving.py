"""What a peer's process does: one JSON object a line in, one a line out. Its own standard library, and numpy.

Requests name a method of the peer and its arguments. A peer is measured from within, so that neither the pipe nor
JSON is in its figures.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any, Protocol


class Peer(Protocol):
    """An engine over one model. Sequences live from `grow` on; `decode` takes all of them forward together."""

    def facts(self) -> dict[str, str]:
        """`version`, and `dtype`: in which it computes."""

    def greedy(self, prompts: list[list[int]], tokens: int) -> list[list[int]]:
        """The tokens that follow each prompt; nothing is kept."""

    def prefill(self, tokens: int, seed: int) -> float:
        """Seconds from a prompt to its first token; nothing is kept."""

    def grow(self, sequences: int, context: int) -> None:
        """Until so many live, each with `context` tokens in its cache, none shared. What lived before may end."""

    def decode(self, steps: int) -> float:
        """Seconds a step, over so many: one more token of each sequence that lives."""


def quiet_stdout() -> int:
    """A descriptor of what was standard output; what engines print goes to standard error from now on."""
    answers = os.dup(1)
    os.dup2(2, 1)
    return answers


def serve(kind: type[Any]) -> None:
    """`kind(**settings)` makes the peer: the first line has its settings. Ends with standard input."""
    with os.fdopen(quiet_stdout(), "w", buffering=1) as answers:
        peer: Any = None
        for line in sys.stdin:
            request = json.loads(line)
            if peer is None:
                peer = kind(**request)
                answer: Any = peer.facts()
            else:
                answer = getattr(peer, request["call"])(*request["arguments"])
            answers.write(json.dumps(answer) + "\n")
        os._exit(0)                # some engines crash when they are taken apart
