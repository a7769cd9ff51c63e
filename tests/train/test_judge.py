"""The judge: the teacher is right in every manner, and whatever differs from what was asked is wrong."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from tokenizers import Tokenizer

from train.agent import Agent
from train.data import token_id
from train.dialogue import CALL, END, Dialogue, Role
from train.jobs import Job
from train.judge import PLANS, Listener, jobs, judge, right
from train.live import AsynchronousHost, Row, Stage, SynchronousHost, sentences
from train.model import new_model, save_model
from train.sampled import Sample
from train.tasks.calls import all_at_once, one_by_one
from train.tokenizer import load_tokenizer, save_tokenizer
from train.world import PIECES

BUNDLED = Path(__file__).parents[2] / "kernel" / "model" / "bundled"


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return load_tokenizer(BUNDLED)


def taught(job: Job, slip: str = "") -> tuple[Row, AsynchronousHost]:
    """The teacher in the model's place; at its first sentence it says `slip` as well."""
    host, agent = AsynchronousHost(job), Agent(job)
    row = Row([], host)
    while utterance := agent.utterance():
        if slip and "The " in utterance:
            utterance, slip = slip + utterance, ""
        for piece in PIECES.findall(utterance):
            users = len(host.runtime.users)
            before = set(agent.outstanding)
            inserted = host.hear(piece)
            for name in [name for name in before if f"[INTR]{name}[" in inserted]:
                agent.hear(name)
            heard = users - len(host.runtime.users)
            first = len(job.interrupts) - users
            for interrupt in job.interrupts[first : first + heard]:
                agent.hear(interrupt)
    host.hear(END)
    row.ended = True
    return row, host


@pytest.mark.parametrize("kind", PLANS)
def test_the_teacher_is_right(kind: str) -> None:
    for job in jobs(kind, 60, seed=3):
        assert right(*taught(job)) == (True, True)


@pytest.mark.parametrize("name", ["Gøjol", "Påtheir", "日本"])
def test_a_character_of_several_tokens_is_heard_whole(tokenizer: Tokenizer, name: str) -> None:
    stage, listener = Stage(BUNDLED), Listener()
    row = stage.row(Dialogue("documents", ()), listener)
    for token in tokenizer.encode(f"Victor lives in {name}.{END}").ids:
        stage.say(row, token)
    assert row.ended
    assert listener.said == f"Victor lives in {name}."


def test_half_a_character_is_heard_as_such(tokenizer: Tokenizer) -> None:
    stage, listener = Stage(BUNDLED), Listener()
    row = stage.row(Dialogue("documents", ()), listener)
    for token in [tokenizer.encode("日").ids[0], token_id(tokenizer, END)]:
        stage.say(row, token)
    assert row.ended
    assert listener.said == "\ufffd"


def test_who_says_more_is_wrong() -> None:
    for job in jobs("single", 10, seed=3):
        assert right(*taught(job, slip="The moon is 3. ")) == (True, False)
        assert right(*taught(job, slip='[CALL]moon[HEAD]find_moon(day="Mara")[END]'))[0] is False


@pytest.mark.parametrize("turns_of", [one_by_one, all_at_once])
def test_the_teacher_is_right_synchronously(turns_of) -> None:  # type: ignore[no-untyped-def]
    for job in jobs("multi_step", 40, seed=4):
        host = SynchronousHost(job)
        turns = turns_of(job)
        following = iter(turn for turn in turns if turn.role is Role.TOOL)
        for turn in turns:
            if turn.role is Role.ASSISTANT:
                written = host.hear(turn.text) + host.hear(END)
                results = [f"<|tool|>{next(following).text}{END}" for _ in range(turn.text.count(CALL))]
                assert written == "".join(results) + "<|assistant|>" * bool(results)
        row = Row([], host, ended=True)
        assert right(row, host) == (True, True)
        assert host.seconds > 0


def test_sentences() -> None:
    assert sentences("The b is 2. The a failed: x.") == ["The a failed: x.", "The b is 2."]
    assert sentences("The b is 2.The a is 1.") == ["The a is 1.", "The b is 2."]


def test_a_model_without_any_skill_is_judged_to_its_end(tmp_path: Path, tokenizer: Tokenizer) -> None:
    save_model(new_model(tokenizer, 1), tmp_path)
    save_tokenizer(tokenizer, tmp_path)
    scores = judge(tmp_path, 2, seed=1, most_tokens=30)
    assert scores["documents"]["exact"] == 0
    assert all(score["exact"] == 0 for score in scores["asynchronous"].values())
    assert set(scores["synchronous"]) == {
        f"{kind} {manner}" for kind in ("single", "parallel", "multi_step") for manner in ("one by one", "all at once")
    }


def test_rows_side_by_side_say_what_each_says_alone(tmp_path: Path, tokenizer: Tokenizer) -> None:
    """Padding and what is forced into one row change nothing in another."""

    class Prompter:
        """Has something written into its row after its third token, and ends it after the tenth."""

        def __init__(self) -> None:
            self.finished, self.heard = False, 0

        def hear(self, piece: str) -> str:
            self.heard += 1
            self.finished = self.heard == 10
            return "Mara lives in Oslo." if self.heard == 3 else ""

    save_model(new_model(tokenizer, 2), tmp_path)
    save_tokenizer(tokenizer, tmp_path)
    stage = Stage(tmp_path)
    source = random.Random(5)
    prompts = [[source.randrange(9, 900) for _ in range(source.randint(5, 40))] for _ in range(4)]
    together = [Row(prompt, Prompter()) for prompt in prompts]
    stage.play(together)
    for prompt, row in zip(prompts, together, strict=True):
        alone = Row(prompt, Prompter())
        stage.play([alone])
        assert alone.written == row.written
        assert "Mara lives in Oslo." in stage.text(row)


def test_sampled_scores_are_of_a_whole_dialogue(tokenizer: Tokenizer) -> None:
    sample = Sample(tokenizer, ["single"])
    assert sample.scores(new_model(tokenizer, 1)) == {"single": 0.0}
    assert len(sample.batches["single"].ids) > 10
