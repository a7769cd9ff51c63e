"""What programs ask of the model beside tokens, from Python through Wasm to a device that computes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from cadenza.kernel.device.batch import Batch, StepResult
from cadenza.kernel.device.torch_device import TorchDevice
from cadenza.kernel.language import Language
from cadenza.kernel.model.directory import BUNDLED
from tests.kernel.device.dense import dense_logits, dense_states, small_device

from .whole import in_loop, output, whole

PROMPT = [5, 9, 2, 33, 60, 9, 9, 17]
INFERLETS = Path(__file__).parents[2] / "inferlets"


def answered(tmp_path: Path, body: str, **arguments: Any) -> Any:
    """What a program prints, as JSON."""
    source = "import json, cadenza\nfrom cadenza import *\nasync def main(args):\n" + "".join(
        f"    {line}\n" for line in body.strip().splitlines())

    async def test() -> None:
        with small_device() as device:
            async with whole(tmp_path, model=device) as system:
                process = await system.run(source, {"prompt": PROMPT, **arguments})
                assert process.exit is not None
                assert process.exit.ending == "finished", (process.exit, output(process, "error"))
                answers.append(json.loads(output(process)))
    answers: list[Any] = []
    in_loop(test)
    return answers[0]


def test_biases_in_passes_and_runs(tmp_path: Path) -> None:
    likeliest = int(dense_logits(PROMPT)[-1].argmax())
    forced, unlike, run, refusal = answered(tmp_path, """
        file, last = File.create(), len(args.prompt) - 1
        samplers = [Sampler(bias={7: 900.0}), Sampler(bias={args.likeliest: -900.0})]
        done = await forward(file, args.prompt, samples=[(last, each) for each in samplers])
        run = Run(File.create(), args.prompt, max_tokens=4, sampler=samplers[0], deliver_every=4)
        said = await run.take()
        try:
            await forward(file, [1], samples=[(0, Sampler(bias={7: float("-inf")}))])
        except Invalid as fault:
            print(json.dumps([*done.tokens, said, str(fault)]))
    """.replace("\n        ", "\n"), likeliest=likeliest)
    assert (forced, run) == (7, [7] * 4)
    assert unlike == int(np.delete(dense_logits(PROMPT)[-1], likeliest).argmax()) + (
        np.delete(dense_logits(PROMPT)[-1], likeliest).argmax() >= likeliest)
    assert "-1000 to 1000" in refusal
    assert "mask" in refusal


def test_penalties_in_passes_and_runs_say_the_same(tmp_path: Path) -> None:
    run, passes = answered(tmp_path, """
        sampler = Sampler(penalties=Penalties(1.5, 0.5, 100.0, 0))
        run = Run(File.create(), args.prompt, max_tokens=30, sampler=sampler, deliver_every=30)
        said = await run.take()
        file, fed, alone = File.create(), args.prompt, []
        while len(alone) < 30:
            done = await forward(file, fed, samples=[(len(fed) - 1, sampler)])
            fed = done.tokens
            alone += fed
        print(json.dumps([said, alone]))
    """.replace("\n        ", "\n"))
    assert run == passes
    assert len(set(run)) == len(run), "nothing is said twice"
    assert not set(run) & set(PROMPT), "nor what was in the prompt"


def test_scores_of_a_continuation(tmp_path: Path) -> None:
    expected = torch.from_numpy(dense_logits(PROMPT)).log_softmax(1)[range(7), PROMPT[1:]]
    raw, scored, tokens = answered(tmp_path, """
        done = await forward(File.create(), args.prompt, scores_from=0)
        context = Context(tokens=args.prompt[:3])
        scored = await context.score(args.prompt[3:])
        print(json.dumps([done.scores, scored, context.tokens]))
    """.replace("\n        ", "\n"))
    assert raw == pytest.approx(expected.tolist(), abs=1e-4)
    assert scored == pytest.approx(expected.tolist()[2:], abs=1e-4)
    assert tokens == PROMPT[:3]


def test_embeddings(tmp_path: Path) -> None:
    states = dense_states(PROMPT)
    mean, last, first, unit = answered(tmp_path, """
        ways = [await embed(args.prompt, pooling, normalise=False) for pooling in ("mean", "last", "first")]
        print(json.dumps([*ways, await embed(args.prompt)]))
    """.replace("\n        ", "\n"))
    for got, wanted in ((mean, states.mean(0)), (last, states[-1]), (first, states[0]),
                        (unit, states.mean(0) / np.linalg.norm(states.mean(0)))):
        np.testing.assert_allclose(got, wanted, atol=1e-4)


class Counting(TorchDevice):
    """Counts the pages that the rows of a step name, at most."""

    pages_of_a_step = 0

    def step(self, batch: Batch) -> StepResult:
        if batch.step:                     # not one that takes the device's measure
            self.pages_of_a_step = max(self.pages_of_a_step, len(np.unique(batch.pages)))
        return super().step(batch)


def counted(tmp_path: Path, inferlet: str, body: str) -> dict[str, float]:
    """What the kernel counted while a function of a shipped inferlet ran over 640 tokens of context, 40 full pages."""
    source = (INFERLETS / inferlet).read_text() + "\nasync def main(args):\n" + body

    async def test() -> None:
        device = Counting(BUNDLED, pages=256, page_tokens=16, threads=1)
        async with whole(tmp_path, model=device, language=Language.from_directory(BUNDLED)) as system:
            process = await system.run(source)
            assert process.exit is not None
            assert process.exit.ending == "finished", (process.exit, output(process, "error"))
            numbers.update(system.kernel.statistics(), pages=device.pages_of_a_step)
    numbers: dict[str, float] = {}
    in_loop(test)
    return numbers


def test_beams_share_all_but_the_page_that_is_being_written(tmp_path: Path) -> None:
    width, steps = 4, 20
    numbers = counted(tmp_path, "beam_search.py", f"""
    start = cadenza.Context(tokens=[7, 8] * 320)
    found = await search(start, {width}, {steps}, 1.0)
    assert [len(beam.tokens) for beam in found] == [{steps}] * {width}
    """)
    assert numbers["engine_tokens"] <= 640 + width * steps, "each token is computed once"
    assert numbers["engine_pages_copied"] <= (width - 1) * steps, "a page for each fork, and no more"
    assert numbers["pages"] <= 40 + 2 * width


def test_the_best_of_n_share_the_question_and_are_scored_where_they_were_written(tmp_path: Path) -> None:
    count, length = 4, 24
    numbers = counted(tmp_path, "best_of_n.py", f"""
    question = cadenza.Context(tokens=[7, 8] * 320)
    found = await best_of(question, {count}, 1.0, {length}, 1)
    assert len(found) == {count} and found[0].score >= found[-1].score
    """)
    assert numbers["engine_tokens"] <= 640 + count * (1 + 2 * length), "said, and scored"
    assert numbers["engine_pages_copied"] <= count, "the question's last page, for each"
    assert numbers["pages"] <= 40 + 3 * count
