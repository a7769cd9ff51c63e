"""Dialogues for other models: `python -m train.chat_data --out FILE.jsonl --count 2000`.

The same generator writes what a checkpoint with a chat template is tuned on (train/lora.py), a dialogue a line:

    {"kind": "parallel", "messages": [{"role": "system", "content": "…"}, …, {"role": "assistant", "content": "…"}]}

CML stands in its textual form: [CALL]id[HEAD]code[END], [TRAP][END], and between them what the runtime wrote,
[INTR]id[HEAD]value[END], which nobody is to learn to say.
"""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from train.dialogue import Dialogue
from train.tasks import ASYNCHRONOUS, KINDS, draw_dialogue
from train.world import Split

WEIGHTS = {task.kind: weight for task, weight in ASYNCHRONOUS.items()}
"""The kinds that are drawn if no others are asked for: calls that do not wait."""


def draw_dialogues(count: int, seed: int, split: Split, kinds: Sequence[str] = ()) -> Iterator[Dialogue]:
    """The same for the same arguments. `kinds`: of `KINDS`, each as often; else by `WEIGHTS`."""
    source = random.Random(f"chat data {split.value} {seed}")
    weights = dict.fromkeys(kinds, 1.0) or WEIGHTS
    for kind in source.choices(list(weights), weights=list(weights.values()), k=count):
        yield draw_dialogue(kind, source, split)


def write(path: Path, dialogues: Iterable[Dialogue]) -> int:
    """Writes them, a line each; answers how many."""
    count = 0
    with path.open("w", encoding="utf-8") as lines:
        for dialogue in dialogues:
            line = {"kind": dialogue.kind, "messages": dialogue.messages()}
            lines.write(json.dumps(line, ensure_ascii=False) + "\n")
            count += 1
    return count


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m train.chat_data", description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="the JSONL file to write")
    parser.add_argument("--count", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--held-out", action="store_true", help="of names and functions that training never uses")
    parser.add_argument("--kinds", nargs="*", choices=sorted(KINDS), default=[], help="else those with calls")
    options = parser.parse_args()
    split = Split.HELD_OUT if options.held_out else Split.TRAIN
    count = write(options.out, draw_dialogues(options.count, options.seed, split, options.kinds))
    print(f"{count} dialogues in {options.out}")


if __name__ == "__main__":
    main()
