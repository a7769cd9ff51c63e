"""The peer `transformers`: eager, SDPA attention, the cache that `generate` uses, the type that is faster for so many
rows."""

from __future__ import annotations

import time
from typing import Any

import torch
import transformers

from benchmarks.peers.faster import faster_dtype
from benchmarks.peers.model import prompt
from benchmarks.peers.serving import serve


class Transformers:
    def __init__(self, directory: str, threads: int) -> None:
        torch.set_num_threads(threads)
        torch.set_grad_enabled(False)
        self._directory = directory
        self._models: dict[str, Any] = {}
        self._model = self._model_for(1)
        self._cache: Any = None
        self._last = torch.zeros(0, 1, dtype=torch.int64)

    def facts(self) -> dict[str, str]:
        return {"version": transformers.__version__,
                "dtype": ", ".join(f"{faster_dtype(rows)} at {rows}" for rows in (1, 8, 32))}

    def greedy(self, prompts: list[list[int]], tokens: int) -> list[list[int]]:
        self._model = self._model_for(len(prompts))
        cache, last = self._begin(prompts)
        said = [last]
        for _ in range(tokens - 1):
            last = self._step(last, cache)
            said.append(last)
        return [list(map(int, row)) for row in torch.cat(said, 1)]

    def prefill(self, tokens: int, seed: int) -> float:
        self._model = self._model_for(tokens)
        started = time.perf_counter()
        self._begin([prompt(seed, tokens)])
        return time.perf_counter() - started

    def grow(self, sequences: int, context: int) -> None:
        """The same content in every row, each with a copy of its own."""
        self._model = self._model_for(sequences)
        self._cache, last = self._begin([prompt(100, context)])
        self._cache.batch_repeat_interleave(sequences)
        self._last = last.repeat(sequences, 1)
        self._last = self._step(self._last, self._cache)

    def decode(self, steps: int) -> float:
        started = time.perf_counter()
        for _ in range(steps):
            self._last = self._step(self._last, self._cache)
        return (time.perf_counter() - started) / steps

    def _model_for(self, rows: int) -> Any:
        dtype = faster_dtype(rows)
        if dtype not in self._models:
            self._models[dtype] = transformers.AutoModelForCausalLM.from_pretrained(
                self._directory, dtype=getattr(torch, dtype), attn_implementation="sdpa")
        return self._models[dtype]

    def _begin(self, prompts: list[list[int]]) -> tuple[Any, torch.Tensor]:
        cache = transformers.DynamicCache()
        return cache, self._step(torch.tensor(prompts), cache)

    def _step(self, tokens: torch.Tensor, cache: Any) -> torch.Tensor:
        logits = self._model(tokens, past_key_values=cache, use_cache=True, logits_to_keep=1).logits
        last: torch.Tensor = logits[:, -1:].argmax(-1)
        return last


if __name__ == "__main__":
    serve(Transformers)
