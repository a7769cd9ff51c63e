"""The model's card and the picture of its run: `python -m train.card --model DIR --scores scores.json`.

Reads what the run and the judges left behind; states no number that it did not read there.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from train.checkpoint import Progress, joined, read_progress
from train.curve import draw
from train.judge import LEAST

POINTS_IN_CARD = 20

CARD = """# Cadenza's small model

A Llama-shaped model of {parameters:.1f} million parameters ({megabytes:.1f} MB in bf16), trained on dialogues that
`train/` makes up. It exists so that the system has a model to run on any machine, one that does something true, and
that calls functions without waiting for them (CML, AsyncLM, arXiv 2412.07017).

## What it can do
In English, in its chat format: call functions that the system turn names, several at once and in chains, in three
manners (below), and tell what they returned; answer questions about facts that the chat itself states (people, things;
also the other way round, and "I do not know." when nothing was said); write the expression of a sum or a small word
problem and call `calculator`; call `weather` and `clock` for a city, also for the city where a person of the chat
lives; state what the tool returned, or that it failed; repeat, reverse, sort, count short lists of words and pick one;
greet, remember a name, say who it is.

## What it cannot do
It knows nothing of the world, can't calculate without its tool, follows no instruction of a kind that is not listed
above, and answers wordings that it never met with whatever is nearest. What a function returns it repeats, right or
wrong. Requests must be worded as in the examples below: the function's verb and noun, then its arguments, each with its
name; one alone may stand without. (Several without names it often gave to the wrong parameters.) Two calls of one
function in one task, nested values (lists, texts with quotation marks or several words), optional arguments, and
functions whose names are not verb_noun were not trained. Values are numbers, names, and the words of training; another
lower-case word it may replace by one of those ("otter" by "anchor"). It was trained on contexts of up to 768 tokens,
most below 512; beyond that expect it to get worse.

## Format
`<|begin|>`, then turns: `<|system|>…<|end|>`, `<|user|>…<|end|>`, `<|assistant|>…<|end|>`, `<|tool|>…<|end|>`. The end
of text is `<|end|>` (id 2), `<|pad|>` is 0, `<|begin|>` is 1. Byte-level BPE, {vocabulary} tokens; digits and
capitalised words never carry the space before them. Reserved for CML: `[CALL]` `[INTR]` `[TRAP]` `[END]` `[HEAD]`.

**Asynchronous.** The system turn begins `Functions that interrupt:`. The call's id is the function's noun, and where
another call of the chain waits for the result, `then` and that one's noun. Interrupts are written by the runtime alone,
between any two tokens outside `[CALL]…[END]` and `[TRAP]…[END]`.
```
<|system|>Functions that interrupt: find_hotel(guest, level), book_table(day), rate_boat(lane).<|end|>
<|user|>Please find the hotel with guest Mara and level 3, then book the table for day that. Also rate the boat of 5.
<|end|>
<|assistant|>[CALL]hotel then table[HEAD]find_hotel(guest="Mara", level=3)[END][CALL]boat[HEAD]rate_boat(lane=5)[END]
[TRAP][END][INTR]hotel then table[HEAD]Talo[END][CALL]table[HEAD]book_table(day="Talo")[END][TRAP][END]
[INTR]boat[HEAD]8[END]The boat is 8.[TRAP][END][INTR]table[HEAD]error: too busy[END] The table failed: too busy.<|end|>
```
(without the line breaks). The user interrupts with the id `user`: `[INTR]user[HEAD]Also count the lamp of 4.[END]` or
`[INTR]user[HEAD]Leave out the boat.[END]`, answered by a call, or by "The boat is left out."

**Synchronous.** After `Functions one by one:` each call is a turn, `<|assistant|><|call|>rate_boat(lane=5)<|end|>`; the
program appends `<|tool|>8<|end|><|assistant|>`. After `Functions all at once:` a turn has all calls that can be made,
`<|call|>…<|call|>…<|end|>`, and the results follow in the same order, a tool turn each. Last it tells all results. The
tools `calculator`, `weather` and `clock` need no declaration: `<|call|>calculator(17*23)<|end|>`.

## Shape
hidden {hidden_size}, layers {num_hidden_layers}, heads {num_attention_heads} of {head_dim}, key-value heads
{num_key_value_heads}, feed-forward {intermediate_size}, rotary base {rope_theta:g}, positions
{max_position_embeddings}, tied embeddings.

## Training
{start}Seed {seed}; {steps} steps, {tokens:.2f} million tokens in rows, {dialogues} dialogues, {minutes:.0f} minutes of
processor time of each of two workers on {machine}. Loss on the assistant's words only, never on interrupts, in nats a
token:

| minute | step | loss |
|---:|---:|---:|
{curve}

## Held-out scores: calls and documents
`scripts/eval-model`, {tasks} tasks, greedy, live: calls take 1 ms to 1 s, a token 5 to 30 ms, under a virtual clock. No
function's name and no person's or city's name was ever met in training. A task is exact when its calls are exactly
those that were asked for (in any order) and its answer tells exactly what they returned. Seconds are virtual, a task.

| kind | exact | calls right | answer right | should be | seconds |
|---|---:|---:|---:|---:|---:|
{judged}

## Held-out scores: chats
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


def judged_rows(judged: dict[str, Any]) -> str:
    """Asynchronous kinds, each with its synchronous forms below it, and the documents."""
    rows: list[str] = []
    for kind, score in judged["asynchronous"].items():
        named = {name: other for name, other in judged["synchronous"].items() if name.split()[0] == kind}
        for name, found in {kind: score, **named}.items():
            least = f"{LEAST[kind]:.0%}" if name == kind else ""
            rows.append(
                f"| {name} | {found['exact']:.1%} | {found['calls']:.1%} | {found['answers']:.1%} | {least} "
                f"| {found['seconds']:.2f} |"
            )
    found = judged["documents"]
    return "\n".join([*rows, f"| documents | {found['exact']:.1%} | | | {LEAST['documents']:.0%} | |"])


def curve_rows(progress: Progress) -> str:
    """About `POINTS_IN_CARD` points of the loss curve, the last among them."""
    stride = max(1, len(progress.curve) // POINTS_IN_CARD)
    chosen = progress.curve[::-1][::stride][::-1]
    return "\n".join(f"| {seconds / 60:.1f} | {step} | {loss:.4f} |" for step, seconds, loss in chosen)


def card(model: Path, progress: Progress, scores: dict[str, Any], machine: str, start: str) -> str:
    """The card as Markdown."""
    config = json.loads((model / "config.json").read_text(encoding="utf-8"))
    size = (model / "model.safetensors").stat().st_size
    return CARD.format(
        **config,
        vocabulary=config["vocab_size"],
        parameters=size / 2e6,
        megabytes=size / 1e6,
        start=f"{start} " if start else "",
        seed=progress.seed,
        steps=progress.step,
        tokens=progress.tokens / 1e6,
        dialogues=progress.dialogues,
        minutes=progress.seconds / 60,
        machine=machine,
        curve=curve_rows(progress),
        tasks=scores["judged"]["tasks"],
        judged=judged_rows(scores["judged"]),
        scores="\n".join(score_row(kind, score) for kind, score in scores["kinds"].items()),
    )


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m train.card", description=__doc__)
    parser.add_argument("--model", type=Path, required=True, help="folder with the model's files; the card goes there")
    parser.add_argument("--checkpoints", type=Path, nargs="+",
                        help="folders with progress.json, one a course; MODEL/checkpoints if not given")  # fmt: skip
    parser.add_argument("--scores", type=Path, required=True, help="what the two judges wrote")
    parser.add_argument("--machine", default="2 processor cores, no GPU", help="the class of machine, in words")
    parser.add_argument("--start", default="", help="what the run went on from, as a sentence")
    parser.add_argument("--curve", type=Path, help="where the picture goes")
    options = parser.parse_args()
    progress = joined([read_progress(folder) for folder in options.checkpoints or [options.model / "checkpoints"]])
    scores = json.loads(options.scores.read_text(encoding="utf-8"))
    text = card(options.model, progress, scores, options.machine, options.start)
    (options.model / "MODEL_CARD.md").write_text(text, encoding="utf-8")
    if options.curve:
        turns = {kind: score["exact_turns"] for kind, score in scores["kinds"].items()}
        judged = {kind: score["exact"] for kind, score in scores["judged"]["asynchronous"].items()}
        documents = {"documents": scores["judged"]["documents"]["exact"]}
        options.curve.write_text(draw(progress, judged | documents | turns), encoding="utf-8")


if __name__ == "__main__":
    main()
