"""A peer that computes nothing: of its settings, `dies` says how it ends when it is asked for a prefill."""

from __future__ import annotations

import os
import signal
import sys

from benchmarks.peers.serving import serve


class ToyPeer:
    def __init__(self, dies: str = "") -> None:
        print("on standard output, as engines like to")
        self._dies, self._living = dies, 0

    def facts(self) -> dict[str, str]:
        return {"version": "1", "dtype": "none"}

    def greedy(self, prompts: list[list[int]], tokens: int) -> list[list[int]]:
        return [prompt[-1:] * tokens for prompt in prompts]

    def prefill(self, tokens: int, seed: int) -> float:
        if self._dies == "trap":
            os.kill(os.getpid(), signal.SIGILL)
        if self._dies == "exit":
            sys.exit("the engine wants what this machine has not")
        return tokens / 1000

    def grow(self, sequences: int, context: int) -> None:
        self._living = sequences

    def decode(self, steps: int) -> float:
        return float(self._living)


if __name__ == "__main__":
    serve(ToyPeer)
