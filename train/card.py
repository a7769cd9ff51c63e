"""The model's card and the picture of its run: `python -m train.card --model DIR --scores scores.json`.

Reads what the run and the evaluation left behind; states no number that it did not read there.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from train.checkpoint import Progress, read_progress
from train.curve import draw

POINTS_IN_CARD = 20

CARD = """# Cadenza's small model

A Llama-shaped model of {parameters:.1f} million parameters ({megabytes:.1f} MB in bf16), trained from nothing on
dialogues that `train/` makes up. It exists so that the system has a model to run on any machine, one that does
something true.

## What it can do
In English, in its chat format: answer questions about facts that the chat itself states (people, things; also the
other way round, and "I do not know." when nothing was said); write the expression of a sum or a small word problem
and call `calculator`; call `weather` and `clock` for a city, also for the city where a person of the chat lives;
state what the tool returned, or that it failed; repeat, reverse, sort, count short lists of words and pick one;
greet, remember a name, say who it is.

## What it cannot do
It knows nothing of the world, can't calculate without its tool, follows no instruction of a kind that is not listed
above, and answers wordings that it never met with whatever is nearest. What the tool says it repeats, right or
wrong. It was trained on contexts of up to 768 tokens; beyond that expect it to get worse.

## Format
`<|begin|>`, then turns: `<|system|>…<|end|>`, `<|user|>…<|end|>`, `<|assistant|>…<|end|>`, `<|tool|>…<|end|>`. The
assistant calls a tool with `<|assistant|><|call|>calculator(17*23)<|end|>`; the program then appends
`<|tool|>391<|end|><|assistant|>`. The end of text is `<|end|>` (id 2), `<|pad|>` is 0, `<|begin|>` is 1. Byte-level
BPE, {vocabulary} tokens; digits and capitalised words never carry the space before them.

## Shape
hidden {hidden_size}, layers {num_hidden_layers}, heads {num_attention_heads} of {head_dim}, key-value heads
{num_key_value_heads}, feed-forward {intermediate_size}, rotary base {rope_theta:g}, positions
{max_position_embeddings}, tied embeddings.

## Training
Seed {seed}; {steps} steps, {tokens:.2f} million tokens in rows, {dialogues} dialogues, {minutes:.0f} minutes on
{machine}. Loss on the assistant's words only, in nats a token:

| minute | step | loss |
|---:|---:|---:|
{curve}

## Held-out scores
Greedy, exact to the last sign. Every name, value, expression and list of words is one that training never uses in
that role; wordings of questions are those of training. `small_talk` and `nameless` have nothing to hold out. A turn
is judged after the true turns before it; a dialogue counts if all its turns are exact.

| kind | dialogues | exact dialogues | turns | exact turns | calls | exact calls |
|---|---:|---:|---:|---:|---:|---:|
{scores}
"""


def score_row(kind: str, score: dict[str, Any]) -> str:
    calls = "" if score["exact_calls"] is None else f"{score['exact_calls']:.1%}"
    return (
        f"| {kind} | {score['dialogues']} | {score['exact_dialogues']:.1%} | {score['turns']} "
        f"| {score['exact_turns']:.1%} | {score['calls'] or ''} | {calls} |"
    )


def curve_rows(progress: Progress) -> str:
    """About `POINTS_IN_CARD` points of the loss curve, the last among them."""
    stride = max(1, len(progress.curve) // POINTS_IN_CARD)
    chosen = progress.curve[::-1][::stride][::-1]
    return "\n".join(f"| {seconds / 60:.1f} | {step} | {loss:.4f} |" for step, seconds, loss in chosen)


def card(model: Path, progress: Progress, scores: dict[str, dict[str, Any]], machine: str) -> str:
    """The card as Markdown."""
    config = json.loads((model / "config.json").read_text(encoding="utf-8"))
    size = (model / "model.safetensors").stat().st_size
    return CARD.format(
        **config,
        vocabulary=config["vocab_size"],
        parameters=size / 2e6,
        megabytes=size / 1e6,
        seed=progress.seed,
        steps=progress.step,
        tokens=progress.tokens / 1e6,
        dialogues=progress.dialogues,
        minutes=progress.seconds / 60,
        machine=machine,
        curve=curve_rows(progress),
        scores="\n".join(score_row(kind, score) for kind, score in scores.items()),
    )


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m train.card", description=__doc__)
    parser.add_argument("--model", type=Path, required=True, help="folder with the model's files; the card goes there")
    parser.add_argument("--checkpoints", type=Path, help="folder with progress.json; MODEL/checkpoints if not given")
    parser.add_argument("--scores", type=Path, required=True, help="what the evaluation wrote")
    parser.add_argument("--machine", default="2 processor cores, no GPU", help="the class of machine, in words")
    parser.add_argument("--curve", type=Path, help="where the picture goes")
    options = parser.parse_args()
    progress = read_progress(options.checkpoints or options.model / "checkpoints")
    scores = json.loads(options.scores.read_text(encoding="utf-8"))["kinds"]
    text = card(options.model, progress, scores, options.machine)
    (options.model / "MODEL_CARD.md").write_text(text, encoding="utf-8")
    if options.curve:
        turns = {kind: score["exact_turns"] for kind, score in scores.items()}
        options.curve.write_text(draw(progress.curve, turns), encoding="utf-8")


if __name__ == "__main__":
    main()
