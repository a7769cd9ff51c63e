"""Random operations on files, on the real device with paging and shared prompts, against plain lists: each token with
its position and the K and V that it was computed with, read by dense attention."""

from __future__ import annotations

import asyncio
import math
from collections import Counter
from dataclasses import dataclass, replace

import numpy as np
import torch
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from torch import Tensor

from cadenza.kernel.batcher import WorkConserving
from cadenza.kernel.device.batch import PROBE_LOGITS
from cadenza.kernel.device.local_link import LocalLink
from cadenza.kernel.device.torch_device import TorchDevice
from cadenza.kernel.engine import Engine
from cadenza.kernel.inference import Inference
from cadenza.kernel.limits import ProcessLimits
from cadenza.kernel.model.config import ModelConfig
from cadenza.kernel.model.decoder import Decoder
from cadenza.kernel.model.operations import TorchOperations
from cadenza.kernel.model.rope import rotate, rotation
from cadenza.kernel.model.weights import RandomWeights
from cadenza.kernel.pager import Pager
from cadenza.kernel.passes import Probe
from cadenza.kernel.process import Process
from cadenza.kvfs.directory import FileSystem
from cadenza.kvfs.errors import Invalid
from cadenza.kvfs.file import File
from cadenza.kvfs.pool import PagePool
from cadenza.kvfs.tiers import Tiers

TOLERANCE = 1e-4
TRIED: Counter[str] = Counter()
EXAMPLES, STEPS = 250, 40                    # 10,000 operations
PAGES, PAGE_TOKENS, HOST_PAGES = 28, 4, 200
CONFIG = ModelConfig.from_mapping({
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 32, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8, "intermediate_size": 48, "vocab_size": 64,
    "max_position_embeddings": 4096, "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "tie_word_embeddings": True,
})
WEIGHTS = RandomWeights(CONFIG, torch.float32, 5)
DECODER = Decoder(CONFIG, WEIGHTS, TorchOperations("float32"))


@dataclass(frozen=True)
class Token:
    """`keys` and `values`, [layers, kv heads, head dim], keys rotated to `computed_at`."""

    token: int
    computed_at: int
    keys: Tensor
    values: Tensor
    shift: int = 0
    hidden: bool = False

    @property
    def position(self) -> int:
        return self.computed_at + self.shift


class DenseAttention:
    """Reads what is held, keys turned to where they stand now, and the new tokens; keeps K and V of the new ones."""

    def __init__(self, held: list[Token], positions: list[int]) -> None:
        self._seen = [token for token in held if not token.hidden]
        self._positions = torch.tensor([t.position for t in self._seen] + positions)
        turned = rotation(DECODER.frequencies.double(), torch.tensor([t.shift for t in self._seen]), torch.float32)
        self._keys = [rotate(torch.stack([t.keys[layer] for t in self._seen]), turned) if self._seen else None
                      for layer in range(CONFIG.layers)]
        self.new: list[tuple[Tensor, Tensor]] = []

    def __call__(self, layer: int, queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        self.new.append((keys, values))
        held = self._keys[layer]
        every = keys if held is None else torch.cat((held, keys))
        read = values if held is None else torch.cat((torch.stack([t.values[layer] for t in self._seen]), values))
        group = CONFIG.heads // CONFIG.kv_heads
        scores = torch.einsum("qhd,khd->hqk", queries, every.repeat_interleave(group, 1)) / math.sqrt(CONFIG.head_dim)
        count, before = len(queries), len(self._seen)
        seen = torch.arange(before + count) <= before + torch.arange(count)[:, None]
        seen &= self._positions <= self._positions[before:, None]
        weights = scores.masked_fill(~seen, -torch.inf).softmax(-1)
        return torch.einsum("hqk,khd->qhd", weights, read.repeat_interleave(group, 1)).reshape(count, -1)


def dense(held: list[Token], tokens: list[int], positions: list[int]) -> tuple[np.ndarray, list[Token]]:
    """Logits of the last of `tokens`, and all of them as they are held then."""
    attention = DenseAttention(held, positions)
    with torch.inference_mode():
        hidden = DECODER.forward(torch.tensor(tokens), torch.tensor(positions), attention)
        logits = DECODER.logits(hidden[-1:])[0].numpy()
    keys, values = (torch.stack([layer[part] for layer in attention.new], 1) for part in (0, 1))
    return logits, [Token(t, p, k, v) for t, p, k, v in zip(tokens, positions, keys, values, strict=True)]


class FilesBehaveAsDenseAttention(RuleBasedStateMachine):
    @initialize()
    def start(self) -> None:
        self.loop = asyncio.new_event_loop()
        torch.set_num_threads(1)
        device = TorchDevice((CONFIG, WEIGHTS), pages=PAGES, page_tokens=PAGE_TOKENS, host_pages=HOST_PAGES, threads=1)
        self.link = LocalLink(device, virtual_seconds=False)
        self.system = FileSystem(PagePool(PAGES, PAGE_TOKENS))
        self.pager = Pager(self.system, Tiers(self.system.pool, HOST_PAGES))
        engine = Engine(self.link, WorkConserving(16, 4), self.pager)
        self.inference = Inference(engine, device.facts)
        nobody = None
        self.process = self.loop.run_until_complete(self.new_process(nobody))
        self.files: dict[File, list[Token]] = {}
        self.create()

    async def new_process(self, image: object) -> Process:
        return Process(1, "ada", image, "{}", ProcessLimits(), close_file=self.system.close,  # type: ignore[arg-type]
                       on_ready=lambda p: None, on_end=lambda p: None)

    def pick(self, which: int) -> tuple[File, list[Token]]:
        return list(self.files.items())[which % len(self.files)]

    def room(self) -> bool:
        return len(self.files) < 8

    def some(self) -> bool:
        return bool(self.files)

    @precondition(room)
    @rule()
    def create(self) -> None:
        self.files[self.system.create("ada")] = []

    @precondition(some)
    @rule(which=st.integers(0, 99), count=st.integers(1, 18), gap=st.sampled_from([0, 0, 0, 7]), seed=st.integers(0, 2),
          reads=st.lists(st.integers(0, 99), max_size=2))
    def append(self, which: int, count: int, gap: int, seed: int, reads: list[int]) -> None:
        """Tokens from three scripts, so that prompts begin alike."""
        file, held = self.pick(which)
        others = [other for other in (self.pick(number) for number in reads) if other[0] is not file]
        if len(held) + sum(len(tokens) for _, tokens in others) > 60:
            return
        tokens = [(seed * 17 + len(held) + i) * 7 % 64 for i in range(count)]
        first = max([0, *(t.position + 1 for _, one in [*others, (file, held)] for t in one)]) + gap
        positions = list(range(first, first + count))
        found = self.loop.run_until_complete(self.forward(file, [other for other, _ in others], tokens, positions))
        wanted, new = dense([t for _, one in others for t in one] + held, tokens, positions)
        np.testing.assert_allclose(found, wanted, atol=TOLERANCE)
        held += new
        TRIED["exact" if file.exact else "approximate"] += 1
        TRIED["swapped in"] += self.pager.swapped_in
        if file.exact:
            alone, _ = dense([], [t.token for t in held], [t.position for t in held])
            np.testing.assert_allclose(found, alone, atol=TOLERANCE)

    @precondition(room)
    @rule(count=st.integers(5, 30), seed=st.integers(0, 2))
    def ask_alike(self, count: int, seed: int) -> None:
        """A new file, with a prompt that begins as others did."""
        self.create()
        self.append(len(self.files) - 1, count, 0, seed, [])

    async def forward(self, file: File, reads: list[File], tokens: list[int], positions: list[int]) -> np.ndarray:
        done = self.inference.forward(
            self.process, file, reads, np.array(tokens, np.int32), np.array(positions, np.int32),
            visible=np.zeros((0, 3), np.int32), mask=None, samples=[],
            probes=[(len(tokens) - 1, Probe(PROBE_LOGITS))])
        while not done.ready:
            await asyncio.sleep(0)
        answer = done.take()
        TRIED["reused tokens"] += answer.reused_tokens
        return answer.probes[0].values

    @precondition(some)
    @rule(which=st.integers(0, 99), share=st.floats(0, 1))
    def truncate(self, which: int, share: float) -> None:
        file, held = self.pick(which)
        file.truncate(round(len(held) * share))
        del held[round(len(held) * share):]

    @precondition(lambda self: self.some() and self.room())
    @rule(which=st.integers(0, 99))
    def fork(self, which: int) -> None:
        file, held = self.pick(which)
        self.files[file.fork()] = list(held)

    @precondition(lambda self: self.some() and self.room())
    @rule(which=st.integers(0, 99), cuts=st.lists(st.floats(0, 1), min_size=2, max_size=4))
    def extract(self, which: int, cuts: list[float]) -> None:
        file, held = self.pick(which)
        ends = [round(len(held) * cut) for cut in cuts]
        ranges = [(min(pair), abs(pair[1] - pair[0])) for pair in zip(ends[::2], ends[1::2], strict=False)]
        self.files[file.extract(ranges)] = [t for first, count in ranges for t in held[first:first + count]]

    @precondition(lambda self: self.some() and self.room())
    @rule(which=st.lists(st.integers(0, 99), min_size=1, max_size=3))
    def concat(self, which: list[int]) -> None:
        picked = [self.pick(number) for number in which]
        self.files[File.concat([file for file, _ in picked], "ada")] = [t for _, held in picked for t in held]

    @precondition(some)
    @rule(which=st.integers(0, 99), by=st.integers(-5, 30))
    def relocate(self, which: int, by: int) -> None:
        file, held = self.pick(which)
        try:
            file.relocate(by)
        except Invalid:
            assert min(t.position for t in held) + by < 0
            return
        held[:] = [replace(t, shift=t.shift + by) for t in held]

    @precondition(some)
    @rule(which=st.integers(0, 99), low=st.floats(0, 1), high=st.floats(0, 1), hidden=st.booleans())
    def hide_or_show(self, which: int, low: float, high: float, hidden: bool) -> None:
        file, held = self.pick(which)
        first, end = sorted((round(len(held) * low), round(len(held) * high)))
        (file.hide if hidden else file.show)(first, end - first)
        held[first:end] = [replace(t, hidden=hidden) for t in held[first:end]]

    @precondition(some)
    @rule(which=st.integers(0, 99))
    def close(self, which: int) -> None:
        file, _ = self.pick(which)
        file.release()
        del self.files[file]

    @precondition(some)
    @rule(frames=st.integers(4, 28))
    def make_room(self, frames: int) -> None:
        self.pager.make_room(frames)

    @invariant()
    def the_books_are_right(self) -> None:
        if hasattr(self, "system"):
            self.system.recount()
            self.pager.recount()
            for file, held in self.files.items():
                assert file.tokens().tolist() == [t.token for t in held]
                assert file.positions().tolist() == [t.position for t in held]

    def teardown(self) -> None:
        if hasattr(self, "system"):
            for file in self.files:
                file.release()
            self.system.recount()
            assert self.system.pool.used == 0
            self.loop.run_until_complete(self.end())
            self.loop.close()

    async def end(self) -> None:
        self.process.kill()
        self.link.close()


TestFiles = FilesBehaveAsDenseAttention.TestCase
TestFiles.settings = settings(max_examples=EXAMPLES, stateful_step_count=STEPS, deadline=None)


def test_what_the_operations_above_have_tried() -> None:
    if TRIED:                                # empty when this test runs alone
        assert min(TRIED[kind] for kind in ("exact", "approximate", "swapped in", "reused tokens")) > 100, TRIED
