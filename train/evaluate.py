"""Held-out scores: `python -m train.evaluate --model DIR --out scores.json`.

Every name, value, expression and list of words here lies on the held-out side of the division (train/world.py).
The model continues each of the assistant's turns greedily through `transformers`' `generate`, after the true turns
before it; a turn counts if it is said exactly, to the last sign, and ended.
"""

from __future__ import annotations

import argparse
import json
import random
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import LlamaForCausalLM

from train.dialogue import CALL, END, PAD
from train.tasks import ASYNCHRONOUS, KINDS, draw_dialogue
from train.tokenizer import load_tokenizer
from train.world import Split

ROWS_AT_ONCE = 32
MOST_NEW_TOKENS = 160


@dataclass(frozen=True)
class Question:
    """One turn to be said: its dialogue, the text before it, and what it should be, `<|end|>` included."""

    kind: str
    dialogue: int
    before: str
    expected: str


@dataclass(frozen=True)
class Score:
    """Of one kind: parts from 0 to 1 of dialogues (all turns exact), of turns, and of calls among the turns."""

    dialogues: int
    exact_dialogues: float
    turns: int
    exact_turns: float
    calls: int
    exact_calls: float | None


def part(hits: list[bool]) -> float:
    return round(sum(hits) / len(hits), 4)


def held_out_questions(kind: str, count: int, seed: int) -> list[Question]:
    """The assistant's turns of `count` held-out dialogues of this kind."""
    source = random.Random(f"held out {kind} {seed}")
    found: list[Question] = []
    for number in range(count):
        dialogue = draw_dialogue(kind, source, Split.HELD_OUT)
        found += [Question(kind, number, before, text + END) for before, text in dialogue.questions()]
    return found


class Speaker:
    """A model with its tokenizer, that continues texts greedily."""

    def __init__(self, folder: Path) -> None:
        self.model = LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32)
        self.tokenizer = load_tokenizer(folder)

    def continuations(self, texts: list[str]) -> list[str]:
        """What the model says after each text, up to and with `<|end|>`; texts of like length share a batch."""
        answers = [""] * len(texts)
        encoded = [self.tokenizer.encode(text, add_special_tokens=False).ids for text in texts]
        order = sorted(range(len(texts)), key=lambda index: len(encoded[index]))
        for start in range(0, len(order), ROWS_AT_ONCE):
            chosen = order[start : start + ROWS_AT_ONCE]
            for index, answer in zip(chosen, self._generate([encoded[index] for index in chosen]), strict=True):
                answers[index] = answer
        return answers

    def _generate(self, prompts: list[list[int]]) -> list[str]:
        length = max(len(prompt) for prompt in prompts)
        pad, end = self.tokenizer.token_to_id(PAD), self.tokenizer.token_to_id(END)
        ids = torch.tensor([[pad] * (length - len(prompt)) + prompt for prompt in prompts])
        mask = torch.tensor([[0] * (length - len(prompt)) + [1] * len(prompt) for prompt in prompts])
        with torch.inference_mode():
            output = self.model.generate(  # type: ignore[misc]
                ids,
                attention_mask=mask,
                max_new_tokens=MOST_NEW_TOKENS,
                do_sample=False,
                eos_token_id=end,
                pad_token_id=pad,
            )
        said = (row[length:].tolist() for row in output)
        ended = (row[: row.index(end) + 1] if end in row else row for row in said)
        return [self.tokenizer.decode(row, skip_special_tokens=False) for row in ended]


def score(questions: list[Question], answers: list[str]) -> Score:
    """Compares what was said with what was expected, turn by turn and dialogue by dialogue."""
    exact = [answer == question.expected for question, answer in zip(questions, answers, strict=True)]
    calls = [hit for question, hit in zip(questions, exact, strict=True) if question.expected.startswith(CALL)]
    by_dialogue: dict[int, bool] = {}
    for question, hit in zip(questions, exact, strict=True):
        by_dialogue[question.dialogue] = by_dialogue.get(question.dialogue, True) and hit
    return Score(
        dialogues=len(by_dialogue),
        exact_dialogues=part(list(by_dialogue.values())),
        turns=len(exact),
        exact_turns=part(exact),
        calls=len(calls),
        exact_calls=part(calls) if calls else None,
    )


def note(file: Path, found: dict[str, Any]) -> None:
    """Puts what was found into a JSON file, beside what others have put there."""
    before = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    file.write_text(json.dumps(before | found, indent=2) + "\n", encoding="utf-8")


def evaluate(folder: Path, count: int, seed: int, show: int = 0) -> dict[str, Score]:
    """The score of every kind, over `count` dialogues each; prints them, and up to `show` misses of each kind."""
    speaker = Speaker(folder)
    scores: dict[str, Score] = {}
    live = {task.kind for task in ASYNCHRONOUS}       # judged by train/judge.py
    for kind in [kind for kind in KINDS if kind not in live]:
        questions = held_out_questions(kind, count, seed)
        answers = speaker.continuations([question.before for question in questions])
        scores[kind] = score(questions, answers)
        print(
            f"{kind:14}  {scores[kind].exact_dialogues:7.1%} dialogues  {scores[kind].exact_turns:7.1%} turns",
            flush=True,
        )
        pairs = zip(questions, answers, strict=True)
        for question, answer in [pair for pair in pairs if pair[0].expected != pair[1]][:show]:
            print(f"    {question.before}\n      expected {question.expected}\n      said     {answer}")
    return scores


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m train.evaluate", description=__doc__)
    parser.add_argument("--model", type=Path, required=True, help="folder with the model's files")
    parser.add_argument("--out", type=Path, required=True, help="the JSON file to write")
    parser.add_argument("--count", type=int, default=200, help="dialogues of each kind")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--show", type=int, default=0, help="print up to this many misses of each kind")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    scores = evaluate(options.model, options.count, options.seed, options.show)
    note(options.out, {"seed": options.seed, "kinds": {kind: asdict(value) for kind, value in scores.items()}})


if __name__ == "__main__":
    main()
