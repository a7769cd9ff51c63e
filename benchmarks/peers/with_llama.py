"""The peer llama.cpp, through the C interface of `llama-cpp-python`: a cache of its own for each sequence."""

from __future__ import annotations

import ctypes
import time
from pathlib import Path
from typing import Any

import llama_cpp
import numpy as np

from benchmarks.peers.ggml_file import written
from benchmarks.peers.model import prompt
from benchmarks.peers.serving import serve

STEP_TOKENS = 2048
ROOM_TOKENS = 256                  # beyond the context, for what is decoded


class Llama:
    def __init__(self, directory: str, threads: int, kind: str) -> None:
        self._kind, self._threads = kind, threads
        llama_cpp.llama_backend_init()
        settings = llama_cpp.llama_model_default_params()
        self._model = llama_cpp.llama_model_load_from_file(str(written(Path(directory), kind)).encode(), settings)
        assert self._model, "llama.cpp does not load the file"
        self._vocabulary = llama_cpp.llama_vocab_n_tokens(llama_cpp.llama_model_get_vocab(self._model))
        self._batch = llama_cpp.llama_batch_init(STEP_TOKENS, 0, 1)
        self._context: Any = None
        self._last: list[int] = []
        self._length = 0

    def facts(self) -> dict[str, str]:
        return {"version": llama_cpp.__version__, "dtype": self._kind}

    def greedy(self, prompts: list[list[int]], tokens: int) -> list[list[int]]:
        said = []
        for tokens_of_one in prompts:
            self._open(1, STEP_TOKENS)
            last = [self._prompt(tokens_of_one)]
            for place in range(tokens - 1):
                last += self._step(last[-1:], len(tokens_of_one) + place)
            said.append(last)
        return said

    def prefill(self, tokens: int, seed: int) -> float:
        self._open(1, tokens + ROOM_TOKENS)
        started = time.perf_counter()
        self._prompt(prompt(seed, tokens))
        return time.perf_counter() - started

    def grow(self, sequences: int, context: int) -> None:
        """The same content in every row, each with a copy of its own (the cache is not unified)."""
        self._open(sequences, context + ROOM_TOKENS)
        last = self._prompt(prompt(100, context))
        memory = llama_cpp.llama_get_memory(self._context)
        for row in range(1, sequences):
            llama_cpp.llama_memory_seq_cp(memory, 0, row, -1, -1)
        self._last, self._length = [last] * sequences, context
        self.decode(1)

    def decode(self, steps: int) -> float:
        started = time.perf_counter()
        for _ in range(steps):
            self._last = self._step(self._last, self._length)
            self._length += 1
        return (time.perf_counter() - started) / steps

    def _open(self, sequences: int, tokens: int) -> None:
        if self._context is not None:
            llama_cpp.llama_free(self._context)
        settings = llama_cpp.llama_context_default_params()
        settings.n_seq_max, settings.n_ctx = sequences, sequences * -(-tokens // 256) * 256
        settings.n_batch = STEP_TOKENS
        settings.kv_unified = False
        settings.n_threads = settings.n_threads_batch = self._threads
        self._context = llama_cpp.llama_init_from_model(self._model, settings)
        assert self._context, "llama.cpp makes no context"

    def _prompt(self, tokens: list[int]) -> int:
        """Of sequence 0; the token that follows."""
        for place, token in enumerate(tokens):
            self._put(place, token, place, 0, place == len(tokens) - 1)
        return self._run(len(tokens), [len(tokens) - 1])[0]

    def _step(self, tokens: list[int], position: int) -> list[int]:
        for row, token in enumerate(tokens):
            self._put(row, token, position, row, True)
        return self._run(len(tokens), list(range(len(tokens))))

    def _put(self, place: int, token: int, position: int, sequence: int, wanted: bool) -> None:
        batch = self._batch
        batch.token[place], batch.pos[place], batch.logits[place] = token, position, int(wanted)
        batch.n_seq_id[place], batch.seq_id[place][0] = 1, sequence

    def _run(self, count: int, wanted: list[int]) -> list[int]:
        """The greedy token at each of `wanted`."""
        self._batch.n_tokens = count
        failed = llama_cpp.llama_decode(self._context, self._batch)
        assert not failed, f"llama_decode answers {failed}"
        return [int(self._logits(place).argmax()) for place in wanted]

    def _logits(self, place: int) -> Any:
        first = llama_cpp.llama_get_logits_ith(self._context, place)
        return np.ctypeslib.as_array(ctypes.cast(first, ctypes.POINTER(ctypes.c_float)), (self._vocabulary,))


if __name__ == "__main__":
    serve(Llama)
