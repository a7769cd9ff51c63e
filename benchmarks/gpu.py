"""The GPU device in one go: its tests (agreement with the oracle), then decode and prefill beside transformers.

    scripts/bench gpu [--quick] [--model DIRECTORY] [--out FILE]

Needs a CUDA GPU and flashinfer; says so where they are not. Tokens/s, medians; context 512; without a model the shape
of Qwen2.5-0.5B with random weights, the same for both. The figures are the last line, and are written to FILE.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any

import torch
import transformers

from benchmarks.harness import PAGE_TOKENS, batch
from cadenza.kernel.device.flashinfer.device import FlashInferDevice
from cadenza.kernel.device.flashinfer.kernels import missing

QWEN = transformers.Qwen2Config(
    vocab_size=151_936, hidden_size=896, intermediate_size=4864, num_hidden_layers=24, num_attention_heads=14,
    num_key_value_heads=2, max_position_embeddings=32_768, tie_word_embeddings=True, dtype="bfloat16",
)  # fmt: skip
CONTEXT = 512
ROWS, PROMPTS = (1, 8, 32, 128), (512, 2048)


def seconds(once: Callable[[int], object], times: int) -> float:
    """Median of one call, which gets its number, after two that are not counted."""
    found = []
    for number in range(times + 2):
        started = perf_counter()
        once(number)
        torch.cuda.synchronize()
        found.append(perf_counter() - started)
    return statistics.median(found[2:])


class Peer:
    """transformers, sdpa, with a cache that grows."""

    def __init__(self, model: Any) -> None:
        self._model = model

    def prefill(self, rows: int, count: int, number: int = 0) -> Any:
        tokens = torch.full((rows, count), 5, device="cuda")
        with torch.inference_mode():
            return self._model(tokens, use_cache=True, logits_to_keep=1).past_key_values

    def decode(self, rows: int, times: int) -> float:
        cache, token = self.prefill(rows, CONTEXT), torch.full((rows, 1), 5, device="cuda")
        with torch.inference_mode():
            return seconds(lambda _: self._model(token, past_key_values=cache, use_cache=True).logits.argmax(-1), times)


def decode(device: FlashInferDevice, rows: int, number: int) -> None:
    device.step(batch(rows, CONTEXT + number, 1, number))


def prefill(device: FlashInferDevice, count: int, number: int) -> None:
    device.step(batch(1, 0, count, number))


def speeds(device: FlashInferDevice, peer: Peer, times: int) -> dict[str, float]:
    figures: dict[str, float] = {}
    for rows in ROWS:
        ours, theirs = seconds(partial(decode, device, rows), times), peer.decode(rows, times)
        figures |= {f"decode_{rows}_tokens_per_second": rows / ours, f"decode_{rows}_vs_transformers": theirs / ours}
    for count in PROMPTS:
        ours = seconds(partial(prefill, device, count), max(3, times // 5))
        theirs = seconds(partial(peer.prefill, 1, count), max(3, times // 5))
        figures |= {f"prefill_{count}_tokens_per_second": count / ours,
                    f"prefill_{count}_vs_transformers": theirs / ours}  # fmt: skip
    return figures


def measured(directory: Path, quick: bool) -> dict[str, Any]:
    """Of the model there."""
    tests = subprocess.run([sys.executable, "-m", "pytest", "tests/gpu", "-q", "-m", "gpu"], check=False)
    model: Any = transformers.AutoModelForCausalLM.from_pretrained(directory, dtype=torch.bfloat16)
    pages = max(ROWS) * (CONTEXT // PAGE_TOKENS + 40)
    with FlashInferDevice(directory, pages=pages, page_tokens=PAGE_TOKENS) as device:
        figures = speeds(device, Peer(model.cuda().eval()), 10 if quick else 50)
    return {"gpu": torch.cuda.get_device_name(), "agrees": tests.returncode == 0, **figures}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--model", type=Path, help="a model directory")
    parser.add_argument("--out", type=Path, default=Path("build/gpu.json"))
    options = parser.parse_args()
    if missing():
        raise SystemExit(f"this benchmark needs {' and '.join(missing())}")
    options.out.parent.mkdir(parents=True, exist_ok=True)
    directory = options.model or options.out.parent / "qwen-shape"
    if not directory.exists():
        torch.manual_seed(0)
        made: Any = transformers.Qwen2ForCausalLM(QWEN)
        made.bfloat16().save_pretrained(directory)
    figures = measured(directory, options.quick)
    options.out.write_text(json.dumps(figures, indent=1))
    print(json.dumps({key: round(value, 3) if isinstance(value, float) else value for key, value in figures.items()}))
    sys.exit(0 if figures["agrees"] else 1)


if __name__ == "__main__":
    main()
