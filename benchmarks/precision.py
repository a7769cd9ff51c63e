"""What narrow weights cost: the bundled model's logits as bfloat16 and as int8 beside float32.

Held-out dialogues, each token predicted from the true ones before it. *Same*: the share of tokens after which the
likeliest next one is float32's. *Error*: root of the mean square, logits against logits. *Divergence*: Kullback–Leibler
of float32's distribution to the other's, mean over tokens, in nats. On the path that the daemon would choose.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing

import numpy as np
from numpy.typing import NDArray

from benchmarks.harness import PAGE_TOKENS, Figures, batch, run
from cadenza.kernel.device.batch import PROBE_LOGITS
from cadenza.kernel.device.kinds import TorchConfig
from cadenza.kernel.device.torch_device import TorchDevice
from cadenza.kernel.model.config import ModelConfig
from cadenza.kernel.model.directory import BUNDLED
from cadenza.kernel.model.tokenizer import Tokenizer
from cadenza.server.options import default_cache
from train.evaluate import held_out_questions

KINDS, SEED = ("recall_interview", "multi_step", "interrupts"), 7
PAGES = 64
Logits = NDArray[np.float64]


def texts(each: int) -> Iterator[list[int]]:
    """Tokens of that many dialogues of each kind."""
    tokenizer = Tokenizer.from_directory(BUNDLED, ModelConfig.from_directory(BUNDLED))
    for kind in KINDS:
        for question in held_out_questions(kind, each, SEED)[:each]:
            yield tokenizer.encode(question.before, True)[: PAGE_TOKENS * PAGES]


def logits(device: TorchDevice, tokens: list[int]) -> Logits:
    """Behind each token, [tokens, V]."""
    count = len(tokens)
    asked = batch(1, 0, count, 0)
    asked.tokens, asked.probe_tokens = np.array(tokens, np.int32), np.arange(count, dtype=np.int32)
    asked.probe_kinds, asked.probe_counts = np.full(count, PROBE_LOGITS, np.int32), np.zeros(count, np.int32)
    asked.asked_starts = np.zeros(count + 1, np.int32)
    return device.step(asked).probe_values.reshape(count, -1).astype(np.float64)


def distributions(of: Logits) -> Logits:
    """Logarithms, [tokens, V]."""
    above: Logits = of - of.max(1, keepdims=True)
    above -= np.log(np.exp(above).sum(1, keepdims=True))
    return above


def computed(dtype: str, said: list[list[int]]) -> Logits:
    config = TorchConfig(pages=PAGES, directory=str(BUNDLED), dtype=dtype, page_tokens=PAGE_TOKENS, threads=1,
                         cache=str(default_cache()))  # fmt: skip
    with closing(config.build(lambda what, fraction: None)) as device:
        assert isinstance(device, TorchDevice)
        print(f"{dtype}: {device.facts.name}", flush=True)
        return np.concatenate([logits(device, tokens) for tokens in said])


async def measure(quick: bool) -> Figures:
    said = list(texts(4 if quick else 12))
    exact = computed("float32", said)
    figures: Figures = {"tokens": len(exact), "deviation": float(exact.std())}
    for dtype in ("bfloat16", "int8"):
        other = computed(dtype, said)
        truth, belief = distributions(exact), distributions(other)
        figures |= {
            f"{dtype}_same": float((exact.argmax(1) == other.argmax(1)).mean()),
            f"{dtype}_error": float(np.sqrt(np.square(exact - other).mean())),
            f"{dtype}_divergence": float((np.exp(truth) * (truth - belief)).sum(1).mean()),
        }
    return figures


if __name__ == "__main__":
    run(__doc__, measure)
