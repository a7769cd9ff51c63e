"""Scores of a pass on the device that computes: however its prompt is cut, they are the dense reference's."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cadenza.kernel.batcher import WorkConserving
from cadenza.kernel.device.local_link import LocalLink
from cadenza.kernel.engine import Engine
from cadenza.kernel.inference import Inference
from cadenza.kernel.limits import ProcessLimits
from cadenza.kernel.pager import Pager
from cadenza.kernel.process import Process
from cadenza.kvfs.directory import FileSystem
from cadenza.kvfs.pool import PagePool
from cadenza.kvfs.tiers import Tiers
from tests.kernel.device.dense import dense_logits, small_device
from tests.kernel.test_engine import NO_RANGES, NONE


async def scores(passes: list[tuple[list[int], int | None]], step_tokens: int) -> list[list[float]]:
    """Of passes that append to one file, one after the other; then once more of another file, all in one pass."""
    with small_device() as device:
        files = FileSystem(PagePool(device.facts.pages, device.facts.page_tokens))
        pager = Pager(files, Tiers(files.pool, 0))
        engine = Engine(LocalLink(device), WorkConserving(step_tokens, 8, step_tokens), pager, run_ahead=2)
        inference = Inference(engine, device.facts)
        process = Process(1, "ada", None, "{}", ProcessLimits(), close_file=files.close, on_ready=lambda p: None,
                          on_end=lambda p: engine.abort(p.pid))  # type: ignore[arg-type]
        found: list[list[float]] = []
        whole = [token for tokens, _ in passes for token in tokens]
        for together in (passes, [(whole, 0)]):
            file = files.create("ada")
            process.files.add(file)
            for tokens, scores_from in together:
                done = inference.forward(process, file, [], np.array(tokens, np.int32), NONE, visible=NO_RANGES,
                                         mask=None, samples=[], probes=[], scores_from=scores_from)
                while not done.over:
                    await asyncio.sleep(0.001)
                found.append(done.take().scores)
        process.kill()
        return found


@settings(max_examples=12, deadline=None)
@given(st.lists(st.lists(st.integers(0, 63), min_size=1, max_size=30), min_size=1, max_size=3), st.data())
def test_scores_are_those_of_the_reference_for_any_chunking(parts: list[list[int]], data: st.DataObject) -> None:
    froms = [data.draw(st.one_of(st.none(), st.integers(0, len(part) - 1))) for part in parts]
    step_tokens = data.draw(st.sampled_from([1, 3, 8, 64]))
    *found, again = asyncio.run(scores(list(zip(parts, froms, strict=True)), step_tokens))
    whole = [token for part in parts for token in part]
    logits = dense_logits(whole).astype(np.float64)
    logits -= np.log(np.exp(logits).sum(1, keepdims=True))
    expected = logits[range(len(whole) - 1), whole[1:]]
    assert again == pytest.approx(expected.tolist(), abs=1e-4), "nothing is skipped because it is in the pool"
    first = 0
    for part, scores_from, got in zip(parts, froms, found, strict=True):
        wanted = [] if scores_from is None else expected[first + scores_from : first + len(part) - 1].tolist()
        assert got == pytest.approx(wanted, abs=1e-4)
        first += len(part)
