"""A LoRA adapter for a checkpoint: `python -m train.lora --model DIR --data FILE.jsonl --out ADAPTER`.

Any causal model in a Hugging Face directory with a chat template and a byte-level tokenizer; any file of chats, a
`{"messages": […]}` a line (train/chat_data.py writes such). Loss on what the assistant says alone: not on what others
say, nor on what the runtime wrote in between ([INTR]…[END]). `cadenza adapters add NAME ADAPTER` serves the result.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import re
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import peft
import torch
import transformers
from torch import Tensor
from torch.nn.utils import clip_grad_norm_

LINEARS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
NOT_LEARNT = -100
WRITTEN_BY_THE_RUNTIME = re.compile(r"\[INTR\].*?\[END\]", re.DOTALL)
RECORD = "training.json"
LARGEST_NORM = 1.0

Message = dict[str, str]


@dataclass(frozen=True)
class Recipe:
    """`length`: tokens of a chat, longer ones are left out; `rows`: chats a step; `rate`: the highest learning rate."""

    rank: int = 16
    alpha: int = 32
    dropout: float = 0.0
    rate: float = 2e-4
    warm_up: float = 0.05
    epochs: int = 1
    rows: int = 8
    length: int = 1024
    seed: int = 1


@dataclass(frozen=True)
class Example:
    """One chat: token ids, and for each what is learnt there, the id itself or NOT_LEARNT."""

    ids: list[int]
    labels: list[int]


def pieces(tokenizer: Any, messages: Sequence[Message]) -> Iterator[tuple[str, bool]]:
    """The chat as its template writes it, cut where learning begins or ends. Raises ValueError for a template that
    writes the beginning of a chat otherwise once it goes on: where the assistant speaks is not to be seen then."""
    written = ""
    for number, message in enumerate(messages):
        if message["role"] != "assistant":
            continue
        before = tokenizer.apply_chat_template(messages[:number], tokenize=False, add_generation_prompt=True)
        after = tokenizer.apply_chat_template(messages[: number + 1], tokenize=False)
        if not (before.startswith(written) and after.startswith(before)):
            raise ValueError("the chat template writes a turn differently once others follow; it cannot be trained on")
        yield before[len(written) :], False
        yield from _spoken(after[len(before) :])
        written = after


def _spoken(text: str) -> Iterator[tuple[str, bool]]:
    done = 0
    for found in WRITTEN_BY_THE_RUNTIME.finditer(text):
        yield text[done : found.start()], True
        yield found.group(), False
        done = found.end()
    yield text[done:], True


def encode(tokenizer: Any, messages: Sequence[Message]) -> Example:
    """Piece by piece: so it is met when it is served, where the runtime writes between any two tokens."""
    ids: list[int] = []
    labels: list[int] = []
    for text, learnt in pieces(tokenizer, messages):
        tokens = tokenizer(text, add_special_tokens=False)["input_ids"]
        ids += tokens
        labels += tokens if learnt else [NOT_LEARNT] * len(tokens)
    return Example(ids, labels)


def read_examples(tokenizer: Any, path: Path, length: int) -> tuple[list[Example], int]:
    """Those of at most `length` tokens, and how many were longer."""
    with path.open(encoding="utf-8") as lines:
        found = [encode(tokenizer, json.loads(line)["messages"]) for line in lines if line.strip()]
    fitting = [example for example in found if len(example.ids) <= length]
    return fitting, len(found) - len(fitting)


def collate(examples: Sequence[Example]) -> dict[str, Tensor]:
    """Padded at the end to the longest, [rows, tokens] each."""
    longest = max(len(example.ids) for example in examples)

    def padded(lists: list[list[int]], filling: int) -> Tensor:
        return torch.tensor([each + [filling] * (longest - len(each)) for each in lists])

    return {"input_ids": padded([example.ids for example in examples], 0),
            "attention_mask": padded([[1] * len(example.ids) for example in examples], 0),
            "labels": padded([example.labels for example in examples], NOT_LEARNT)}  # fmt: skip


def batches(examples: Sequence[Example], recipe: Recipe) -> Iterator[dict[str, Tensor]]:
    """Every epoch in another order."""
    source = random.Random(recipe.seed)
    for _ in range(recipe.epochs):
        order = source.sample(range(len(examples)), len(examples))
        for first in range(0, len(order), recipe.rows):
            yield collate([examples[number] for number in order[first : first + recipe.rows]])


def share_of_rate(step: int, steps: int, warm_up: float) -> float:
    """Of the highest: up in a line, down in half a cosine."""
    rising = max(1, round(steps * warm_up))
    if step < rising:
        return (step + 1) / rising
    return 0.5 * (1 + math.cos(math.pi * (step - rising) / max(1, steps - rising)))


def train(model: Any, examples: Sequence[Example], recipe: Recipe) -> list[float]:
    """Trains what of the model asks for it; answers the loss of each step, in nats a token."""
    device = next(model.parameters()).device
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=recipe.rate, weight_decay=0.0)
    steps = recipe.epochs * math.ceil(len(examples) / recipe.rows)
    losses: list[float] = []
    model.train()
    for step, batch in enumerate(batches(examples, recipe)):
        for group in optimizer.param_groups:
            group["lr"] = recipe.rate * share_of_rate(step, steps, recipe.warm_up)
        loss = model(**{name: tensor.to(device) for name, tensor in batch.items()}).loss
        loss.backward()
        clip_grad_norm_(trained, LARGEST_NORM)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        losses.append(round(loss.item(), 4))
        print(f"step {step + 1} of {steps}  loss {losses[-1]:.3f}", flush=True)
    return losses


def tune(directory: Path, data: Path, out: Path, recipe: Recipe) -> list[float]:
    """Writes the adapter and a record of its making into `out`; answers the losses. Raises ValueError when there is
    nothing to learn from."""
    torch.manual_seed(recipe.seed)
    tokenizer = transformers.AutoTokenizer.from_pretrained(directory)
    examples, longer = read_examples(tokenizer, data, recipe.length)
    if not examples:
        raise ValueError(f"{data} holds no chat of at most {recipe.length} tokens ({longer} longer ones)")
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    base: Any = transformers.AutoModelForCausalLM.from_pretrained(directory, dtype="auto")
    settings = peft.LoraConfig(r=recipe.rank, lora_alpha=recipe.alpha, lora_dropout=recipe.dropout,
                               target_modules=list(LINEARS), task_type="CAUSAL_LM")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # peft asks transformers in a way that is deprecated
        model = peft.get_peft_model(base.to(device), settings)
    losses = train(model, examples, recipe)
    model.save_pretrained(str(out))
    record = {"recipe": asdict(recipe), "chats": len(examples), "longer": longer, "losses": losses}
    (out / RECORD).write_text(json.dumps(record, indent=1) + "\n")
    return losses


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m train.lora", description=__doc__)
    parser.add_argument("--model", type=Path, required=True, help="folder of the checkpoint")
    parser.add_argument("--data", type=Path, required=True, help="JSONL of chats")
    parser.add_argument("--out", type=Path, required=True, help="folder of the adapter")
    for name, default in asdict(Recipe()).items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=type(default), default=default)
    options = vars(parser.parse_args())
    directory, data, out = options.pop("model"), options.pop("data"), options.pop("out")
    tune(directory, data, out, Recipe(**options))


if __name__ == "__main__":
    main()
