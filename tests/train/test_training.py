"""A run can stop and go on; the head start does what it says; the bundled model answers what it never saw."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer
from transformers import LlamaForCausalLM

from train.checkpoint import Progress, has_checkpoint, joined, load_checkpoint, save_checkpoint
from train.data import NOT_LEARNT, SHORT, Shape, pack
from train.evaluate import Speaker, held_out_questions
from train.head_start import give_head_start
from train.model import logits_at, loss_of, new_model, save_model
from train.sieve import losses_of, sieved
from train.tasks import mixture
from train.tokenizer import load_tokenizer
from train.train import COURSES, Trainer
from train.workers import Team

BUNDLED = Path(__file__).parents[2] / "kernel" / "model" / "bundled"


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return load_tokenizer(BUNDLED)


def new_trainer(tokenizer: Tokenizer, seed: int) -> Trainer:
    return Trainer(new_model(tokenizer, seed), tokenizer, Team(0, 1), 1.0, Progress(seed))


def test_a_checkpoint_brings_everything_back(tokenizer: Tokenizer, tmp_path: Path) -> None:
    first = new_trainer(tokenizer, 1)
    first.step()
    save_checkpoint(tmp_path, first.model, first.optimizers, first.progress)
    second = new_trainer(tokenizer, 2)
    assert load_checkpoint(tmp_path, second.model, second.optimizers) == first.progress
    weights = zip(first.model.parameters(), second.model.parameters(), strict=True)
    assert all(torch.equal(one, other) for one, other in weights)
    for one, other in zip(first.optimizers, second.optimizers, strict=True):
        saved, loaded = one.state_dict()["state"], other.state_dict()["state"]
        assert saved.keys() == loaded.keys()
        assert all(torch.equal(saved[number][name], loaded[number][name]) for number in saved for name in saved[number])


def test_without_a_checkpoint_nothing_changes(tokenizer: Tokenizer, tmp_path: Path) -> None:
    trainer = new_trainer(tokenizer, 1)
    assert not has_checkpoint(tmp_path)
    assert load_checkpoint(tmp_path, trainer.model, trainer.optimizers) is None


def test_same_step_same_batch(tokenizer: Tokenizer) -> None:
    one, other = (pack(tokenizer, random.Random("7 3 0"), SHORT, 4) for _ in range(2))
    assert torch.equal(one.ids, other.ids)
    assert torch.equal(one.targets, other.targets)


def test_packing_does_not_change_the_loss(tokenizer: Tokenizer) -> None:
    """What shares a row with a dialogue is invisible to it: its logits are the model's on it alone, at every place."""
    model = new_model(tokenizer, 3)
    batch = pack(tokenizer, random.Random(4), SHORT, 4)
    places = batch.targets != NOT_LEARNT
    with torch.no_grad():
        alone = torch.cat([model(ids[None]).logits[0] for ids in batch.ids.split(list(batch.lengths))])
        torch.testing.assert_close(logits_at(model, batch, places), alone[places], atol=1e-5, rtol=1e-5)
    assert len(batch.lengths) > 3
    assert torch.isfinite(loss_of(model, batch))


def test_the_sieve_keeps_the_dialogues_of_the_greatest_losses(tokenizer: Tokenizer) -> None:
    model = new_model(tokenizer, 3)
    batch = pack(tokenizer, random.Random(4), SHORT, 4)
    losses = losses_of(model, batch)
    for number in range(3):     # a dialogue's own loss is the mean over its tokens, times their number
        alone = batch.only([number])
        learnt = int((alone.targets != NOT_LEARNT).sum())
        assert float(losses[number]) == pytest.approx(learnt * loss_of(model, alone).item(), rel=1e-4)
    ranked = losses.argsort(descending=True).tolist()
    kept = sieved(losses, batch, batch.lengths[ranked[0]] + batch.lengths[ranked[1]])
    assert kept.lengths == batch.only(sorted(ranked[:2])).lengths
    assert torch.equal(kept.ids, batch.only(sorted(ranked[:2])).ids)
    assert sum(sieved(losses, batch, 700).lengths) <= 700


def test_head_start_attends_one_back(tokenizer: Tokenizer) -> None:
    model = new_model(tokenizer, 5)
    give_head_start(model)
    model.set_attn_implementation("eager")
    ids = pack(tokenizer, random.Random(6), SHORT, 4).ids[None, :100]
    attention = model(ids, output_attentions=True).attentions[0][0, 0]  # [query, key]
    assert attention.diagonal(-1).mean() > 0.9


def test_saved_model_is_llama_in_bf16(tokenizer: Tokenizer, tmp_path: Path) -> None:
    model = new_model(tokenizer, 7)
    save_model(model, tmp_path)
    loaded = LlamaForCausalLM.from_pretrained(tmp_path)
    assert loaded.dtype == torch.bfloat16
    assert (tmp_path / "model.safetensors").stat().st_size < 10_000_000
    expected = model.model.layers[2].mlp.up_proj.weight.to(torch.bfloat16)
    assert torch.equal(loaded.model.layers[2].mlp.up_proj.weight, expected)


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "least"), [("facts", 0.65), ("sum", 0.9), ("weather", 0.9)])
def test_the_bundled_model_answers_what_it_never_saw(kind: str, least: float) -> None:
    """`least` lies a little under the kind's recorded score (train/scores.json): no later model may be worse."""
    questions = held_out_questions(kind, 20, seed=99)
    answers = Speaker(BUNDLED).continuations([question.before for question in questions])
    right = sum(answer == question.expected for question, answer in zip(questions, answers, strict=True))
    assert right >= least * len(questions)


def test_courses_are_joined_one_after_the_other() -> None:
    first = Progress(7, 10, 60.0, 100, 4, [(5, 30.0, 2.0)], [(40.0, {"facts": 0.5})])
    second = Progress(8, 6, 30.0, 50, 2, [(5, 20.0, 1.0)], [(25.0, {"facts": 0.7})])
    whole = joined([first, second])
    assert (whole.seed, whole.step, whole.seconds, whole.tokens, whole.dialogues) == (7, 16, 90.0, 150, 6)
    assert whole.curve == [(5, 30.0, 2.0), (15, 80.0, 1.0)]
    assert whole.sampled == [(40.0, {"facts": 0.5}), (85.0, {"facts": 0.7})]


def test_the_second_course_has_calls_four_times_as_often_and_is_sieved(tokenizer: Tokenizer) -> None:
    trainer = new_trainer(tokenizer, 3)
    trainer.course = COURSES["second"]
    learnt = trainer.batch()
    assert 1200 < len(learnt.ids) <= 1536
    random_source = random.Random(f"{trainer.progress.seed} 0 0")
    drawn = pack(tokenizer, random_source, Shape(4 * 1536, 512, mixture(4.0)), 12)
    assert set(learnt.lengths) < set(drawn.lengths)
    assert losses_of(trainer.model, learnt).mean() > losses_of(trainer.model, drawn).mean()
    usual, often = mixture(1.0), mixture(4.0)
    assert {kind for kind in usual if often[kind] == 4 * usual[kind]} == {
        "single", "parallel", "multi_step", "many_steps", "interrupts", "many_interrupts", "one_by_one",
        "one_by_one_steps", "all_at_once", "all_at_once_steps"}
