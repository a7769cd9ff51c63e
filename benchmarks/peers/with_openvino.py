"""The peer OpenVINO GenAI: continuous batching over the float16 weights, which it reads from a GGUF file."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import openvino
import openvino_genai

from benchmarks.peers.ggml_file import written
from benchmarks.peers.model import prompt
from benchmarks.peers.serving import serve

FOR_EVER_TOKENS = 20_000


class OpenVino:
    def __init__(self, directory: str, threads: int) -> None:
        scheduling = openvino_genai.SchedulerConfig()
        scheduling.cache_size = 2                                    # GB
        scheduling.max_num_batched_tokens = 2048
        scheduling.enable_prefix_caching = False
        self._engine = openvino_genai.ContinuousBatchingPipeline(
            str(written(Path(directory), "f16")), scheduling, "CPU", {"INFERENCE_NUM_THREADS": threads})
        self._living: list[Any] = []
        self._asked = 0

    def facts(self) -> dict[str, str]:
        return {"version": openvino_genai.__version__.split("-")[0], "dtype": "f16 weights"}

    def greedy(self, prompts: list[list[int]], tokens: int) -> list[list[int]]:
        handles = [self._ask(one, tokens) for one in prompts]
        while self._engine.has_non_finished_requests():
            self._engine.step()
        return [list(handle.read_all()[0].generated_ids) for handle in handles]

    def prefill(self, tokens: int, seed: int) -> float:
        handle = self._ask(prompt(seed, tokens), 1)
        started = time.perf_counter()
        self._until_said([handle])
        return time.perf_counter() - started

    def grow(self, sequences: int, context: int) -> None:
        new = [self._ask(prompt(100 + row, context), FOR_EVER_TOKENS) for row in range(len(self._living), sequences)]
        self._until_said(new)
        self._living += new
        self.decode(1)

    def decode(self, steps: int) -> float:
        started = time.perf_counter()
        for _ in range(steps):
            self._engine.step()
        elapsed = time.perf_counter() - started
        said = [self._drain(handle) for handle in self._living]
        assert min(said) >= steps, f"{steps} steps, and sequences said {said}"
        return elapsed / steps

    def _ask(self, tokens: list[int], count: int) -> Any:
        wanted = openvino_genai.GenerationConfig()
        wanted.max_new_tokens, wanted.ignore_eos, wanted.do_sample = count, True, False
        self._asked += 1
        return self._engine.add_request(self._asked, openvino.Tensor(np.array([tokens], np.int64)), wanted)

    def _until_said(self, handles: list[Any]) -> None:
        """Until each has its first token."""
        while not all(handle.can_read() for handle in handles):
            self._engine.step()

    @staticmethod
    def _drain(handle: Any) -> int:
        """How many tokens came since the last time."""
        said = 0
        while handle.can_read():
            said += sum(len(output.generated_ids) for output in handle.read().values())
        return said


if __name__ == "__main__":
    serve(OpenVino)
