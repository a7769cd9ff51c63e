"""Trees of drafted tokens, verified in one pass: whatever is drafted, the outcome is that of plain decoding."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from itertools import pairwise
from random import Random

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cadenza.kernel.batcher import WorkConserving
from cadenza.kernel.device.batch import PROBE_LOGITS
from cadenza.kernel.device.local_link import LocalLink
from cadenza.kernel.device.torch_device import TorchDevice
from cadenza.kernel.engine import Engine
from cadenza.kernel.inference import Inference
from cadenza.kernel.limits import DRAFT_TOKENS, ProcessLimits
from cadenza.kernel.model.config import ModelConfig
from cadenza.kernel.model.weights import RandomWeights
from cadenza.kernel.pager import Pager
from cadenza.kernel.passes import Probe
from cadenza.kernel.process import Process
from cadenza.kernel.sampler import Penalties, Sampler
from cadenza.kernel.verification import Verdict, Verification, depths_of, ranges_of
from cadenza.kvfs.directory import FileSystem
from cadenza.kvfs.errors import Busy, Internal, Invalid, LimitExceeded, NotReady, TooLong
from cadenza.kvfs.file import File
from cadenza.kvfs.pool import PagePool
from cadenza.kvfs.tiers import Tiers

from .test_engine import NO_RANGES, NONE, Bench, unhurried
from .toy_device import VOCABULARY

PROMPT = [5, 6, 7]
GREEDY = Sampler()
Tree = tuple[list[int], list[int]]


def tree(source: Random, truth: Sequence[int], size: int, vocabulary: int, luck: float = 0.8) -> Tree:
    """`size` drafted tokens with their parents, some of which go along `truth`, what is really said."""
    tokens, parents, right = [], [], {0: 0}                    # of those on the true way: how deep
    for number in range(1, size + 1):
        parent = max(right) if source.random() < 0.5 else source.randrange(number)
        taken = {tokens[n] for n, each in enumerate(parents) if each == parent}
        token = source.randrange(vocabulary)
        if parent in right and right[parent] < len(truth) and source.random() < luck:
            token = truth[right[parent]]
        if token not in taken and parent in right and truth[right[parent] : right[parent] + 1] == [token]:
            right[number] = right[parent] + 1
        tokens.append(token)
        parents.append(parent)
    return tokens, parents


def verify(bench: Bench, file: File, token: int, drafted: Tree, **more: object) -> Verification:
    return bench.inference.verify(bench.process, file, (), np.array([token, *drafted[0]], np.int32), drafted[1],
                                  **{"sampler": GREEDY, "mask": None, **more})  # type: ignore[arg-type]


# --- what rows see ---

@settings(deadline=None)
@given(st.randoms(use_true_random=False), st.integers(1, 40), st.integers(0, 50))
def test_a_row_sees_what_is_before_and_its_ancestors(source: Random, size: int, before: int) -> None:
    parents = [source.randrange(number) for number in range(1, size + 1)]
    ranges, depths = ranges_of(parents, before), depths_of(parents)
    for row in range(size + 1):
        ancestors, at = {0}, row
        while at:
            ancestors.add(at)
            at = parents[at - 1]
        named = ranges[ranges[:, 0] == row].tolist()
        seen = [offset for _, first, count in named for offset in range(first, first + count)]
        if named:
            assert seen == [*range(before), *sorted(before + each for each in ancestors)]
        else:
            assert ancestors == set(range(row + 1))
        assert depths[row] == len(ancestors) - 1
    assert (np.diff(ranges[:, 0]) >= 0).all()


def test_a_chain_needs_no_ranges() -> None:
    assert len(ranges_of([0, 1, 2, 3], 7)) == 0


# --- on a device that stores tokens ---

def test_accepted_tokens_stay_and_the_rest_goes() -> None:
    async def test() -> None:
        bench = Bench()
        file = bench.file()
        said = unhurried(PROMPT, 6)
        bench.forward(file, PROMPT[:-1])
        await bench.settle()
        draft = verify(bench, file, PROMPT[-1], ([1, said[0], 2, said[1], 3, said[2], 9], [0, 0, 1, 2, 2, 4, 6]))
        with pytest.raises(NotReady):
            draft.take()
        with pytest.raises(Busy):
            file.fork()
        await bench.settle()
        assert draft.take() == Verdict(said[:4], 3, 8, "running")
        assert file.tokens().tolist() == PROMPT + said[:3]
        assert file.positions().tolist() == list(range(6))
        assert (file.contiguous, file.exact, file.next_position, file.busy) == (True, True, 6, False)
        run = bench.decode(file, [said[3]], 2)
        await bench.settle()
        assert run.take().tokens == said[4:6]
        assert [len(batch.moves) for batch in bench.device.batches if len(batch.moves)] == [3]
        bench.check_all_returned()
    asyncio.run(test())


@settings(max_examples=25, deadline=None)
@given(source=st.randoms(use_true_random=False), temperature=st.sampled_from([0.0, 0.7]),
       step_tokens=st.sampled_from([5, 9, 64]), pages=st.sampled_from([26, 64]), masked=st.booleans())
def test_several_at_once_with_forks_between(source: Random, temperature: float, step_tokens: int, pages: int,
                                            masked: bool) -> None:
    """In a small pool programs push each other out, in the middle of what they do."""
    async def test() -> None:
        bench = Bench(step_tokens=step_tokens, pages=pages, host_pages=40)
        mask = bench.inference.mask(np.arange(100, 110, dtype=np.int32), allowed=True) if masked else None
        sampler = Sampler(temperature, seed=3)
        plain, ways = bench.file(), []
        for number in range(3):
            run = bench.inference.decode(
                bench.process, plain, (), np.array([*PROMPT, number], np.int32), NONE, sampler=sampler, mask=mask,
                max_tokens=14, stop_tokens=frozenset(), stop_sequences=(), deliver_every=1)
            await bench.settle()
            ways.append(run.take().tokens)
            plain.truncate(0)
        files = [bench.file() for _ in ways]
        for file in files:
            bench.forward(file, PROMPT)
        await bench.settle()
        said: list[list[int]] = [[] for _ in ways]
        forks: list[tuple[File, list[int]]] = []
        while not all(len(each) >= 14 for each in said):
            drafts = []
            for number, file in enumerate(files):
                if source.random() < 0.3:
                    forks.append((file.fork(), [*PROMPT, number, *said[number]][: len(file)]))
                last = said[number][-1] if said[number] else number
                drafts.append(verify(bench, file, last, tree(source, ways[number][len(said[number]):],
                                     source.randrange(7), VOCABULARY), sampler=sampler, mask=mask))
            await bench.settle()
            for number, draft in enumerate(drafts):
                said[number] += draft.take().tokens
                assert files[number].tokens().tolist() == [*PROMPT, number, *said[number][:-1]]
                assert files[number].contiguous
        assert [each[:14] for each in said] == ways
        for fork, tokens in forks:
            assert fork.tokens().tolist() == tokens
            fork.close()
        bench.check_all_returned()
    asyncio.run(test())


def test_a_draft_that_finds_less_room_is_cut_from_its_end() -> None:
    async def test() -> None:
        bench = Bench(step_tokens=4)
        file, said = bench.file(), unhurried(PROMPT, 8)
        bench.forward(file, PROMPT[:-1])
        await bench.settle()
        draft = verify(bench, file, PROMPT[-1], (said[:7], list(range(7))))
        await bench.settle()
        assert draft.take() == Verdict(said[:4], 3, 4, "running")
        assert file.tokens().tolist() == PROMPT + said[:3]
        bench.check_all_returned()
    asyncio.run(test())


@pytest.mark.parametrize("under_way", [False, True])
def test_closed_it_has_never_been(under_way: bool) -> None:
    async def test() -> None:
        bench = Bench()
        file, said = bench.file(), unhurried(PROMPT, 4)
        bench.forward(file, PROMPT[:-1])
        await bench.settle()
        draft = verify(bench, file, PROMPT[-1], (said[:2], [0, 0]))
        for _ in range(3 * under_way):
            await asyncio.sleep(0)
        assert bool(bench.link.waiting) == under_way
        draft.close()
        assert (file.tokens().tolist(), file.busy) == (PROMPT[:-1], False)
        run = bench.decode(file, PROMPT[-1:], 4)
        await bench.settle()
        assert run.take().tokens == said
        bench.check_all_returned()
    asyncio.run(test())


def test_a_failed_step_leaves_the_file_as_it_was() -> None:
    async def test() -> None:
        bench = Bench()
        file = bench.file()
        draft = verify(bench, file, 4, ([1, 2], [0, 1]))
        for _ in range(3):
            await asyncio.sleep(0)
        bench.link.answer(error="a cable is out")
        await bench.settle()
        with pytest.raises(Internal):
            draft.take()
        assert (len(file), file.busy, draft.ready) == (0, False, True)
        bench.check_all_returned()
    asyncio.run(test())


def test_what_is_wrong_with_a_draft() -> None:
    async def test() -> None:
        bench = Bench(context_tokens=8)
        file = bench.file()
        for drafted, error in ((([1] * 8, list(range(8))), TooLong), (([1, 2], [0, 2]), Invalid),
                               (([VOCABULARY], [0]), Invalid), (([1], []), LimitExceeded),
                               (([1] * (DRAFT_TOKENS + 1), [0] * (DRAFT_TOKENS + 1)), LimitExceeded)):
            with pytest.raises(error):
                verify(bench, file, 4, drafted)
        with pytest.raises(Invalid):
            verify(bench, file, 4, ([], []), sampler=Sampler(-1.0))
        assert not file.busy
        alone = verify(bench, file, 4, ([], []))
        await bench.settle()
        assert alone.take() == Verdict(unhurried([4], 1), 0, 1, "running")
        bench.check_all_returned()
    asyncio.run(test())


# --- on a model ---

CONFIG = ModelConfig.from_mapping({
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 32, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8, "intermediate_size": 48, "vocab_size": 24,
    "max_position_embeddings": 256, "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "tie_word_embeddings": True,
})
TOKENS = 14


class Models:
    """One engine over a small model, of random weights."""

    def __init__(self, seed: int, pages: int) -> None:
        device = TorchDevice((CONFIG, RandomWeights(CONFIG, torch.float32, seed)), pages=pages, page_tokens=4,
                             host_pages=80, threads=1)  # fmt: skip
        self.files = FileSystem(PagePool(pages, 4))
        link = LocalLink(device, virtual_seconds=False)
        self.engine = Engine(link, WorkConserving(24, 8), Pager(self.files, Tiers(self.files.pool, 80)))
        self.inference = Inference(self.engine, device.facts)
        self.link = link
        nobody: object = None
        self.process = Process(1, "ada", nobody, "{}", ProcessLimits(),  # type: ignore[arg-type]
                               close_file=self.files.close, on_ready=lambda p: None, on_end=lambda p: None)

    async def done(self) -> None:
        while self.engine.busy:
            await asyncio.sleep(0.0005)

    async def decoded(self, file: File, prompt: list[int], sampler: Sampler) -> list[int]:
        run = self.inference.decode(
            self.process, file, (), np.array(prompt, np.int32), NONE, sampler=sampler, mask=None, max_tokens=TOKENS,
            stop_tokens=frozenset(), stop_sequences=(), deliver_every=1)
        await self.done()
        return run.take().tokens

    async def logits(self, file: File, token: int) -> np.ndarray:
        done = self.inference.forward(self.process, file, (), np.array([token], np.int32), NONE, visible=NO_RANGES,
                                      mask=None, samples=[], probes=[(0, Probe(PROBE_LOGITS))])
        await self.done()
        return done.take().probes[0].values


@settings(max_examples=20, deadline=None)
@given(source=st.randoms(use_true_random=False), seed=st.integers(0, 3), temperature=st.sampled_from([0.0, 1.0, 3.0]),
       penalties=st.sampled_from([None, Penalties(1.5, 0.5, 0.3), Penalties(1.5, 0.5, 0.3, window=4)]),
       pages=st.sampled_from([24, 80]), programs=st.integers(1, 3))
def test_the_model_says_what_it_says_plainly(source: Random, seed: int, temperature: float,
                                             penalties: Penalties | None, pages: int, programs: int) -> None:
    async def test() -> None:
        torch.set_num_threads(1)
        models = Models(seed, pages)
        sampler = Sampler(temperature, top_p=0.95 if seed % 2 else 1.0, seed=seed, penalties=penalties)
        prompts = [[source.randrange(24) for _ in range(source.randrange(1, 9))] for _ in range(programs)]
        plain = [models.files.create("ada") for _ in prompts]
        ways = [await models.decoded(file, prompt, sampler) for file, prompt in zip(plain, prompts, strict=True)]

        async def speculates(prompt: list[int], way: list[int]) -> None:
            file, said, fork = models.files.create("ada"), list[int](), None
            if len(prompt) > 1:
                models.inference.forward(models.process, file, (), np.array(prompt[:-1], np.int32), NONE,
                                         visible=NO_RANGES, mask=None, samples=[], probes=[])
            while len(said) < TOKENS:
                while file.busy:
                    await asyncio.sleep(0.0005)
                if fork is None and source.random() < 0.2:
                    fork, forked_at = file.fork(), len(said)
                tokens, parents = tree(source, way[len(said):], source.randrange(9), 24)
                draft = models.inference.verify(
                    models.process, file, (), np.array([[*prompt, *said][-1], *tokens], np.int32), parents,
                    sampler=sampler, mask=None)
                while not draft.ready:
                    await asyncio.sleep(0.0005)
                said += draft.take().tokens
            assert said[:TOKENS] == way
            await models.done()
            if fork is not None:
                again = [*prompt, *said[:forked_at]]
                assert fork.tokens().tolist() == again[:-1]
                followed = await models.decoded(fork, again[-1:], sampler)
                assert followed[: TOKENS - forked_at] == way[forked_at:]
            file.truncate(len(prompt) + TOKENS - 2)
            whole = models.files.create("ada")
            again = [*prompt, *said[: TOKENS - 2]]
            models.inference.forward(models.process, whole, (), np.array(again, np.int32), NONE, visible=NO_RANGES,
                                     mask=None, samples=[], probes=[])
            await models.done()
            theirs, ours = await models.logits(whole, said[TOKENS - 2]), await models.logits(file, said[TOKENS - 2])
            assert np.abs(theirs - ours).max() < 1e-4

        await asyncio.gather(*map(speculates, prompts, ways))
        models.link.close()
    asyncio.run(test())


def test_the_tree_of_the_tests_is_one() -> None:
    tokens, parents = tree(Random(1), [1, 2, 3], 30, 9)
    assert all(parent <= number for number, parent in enumerate(parents))
    assert len(tokens) == 30
    assert any(a > b for a, b in pairwise(parents))
