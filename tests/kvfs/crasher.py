"""A process that works on a store until it is killed. It tells each thing that it knows to be durable on its standard
output, one line each, and only then goes on. Arguments: directory, seed."""

from __future__ import annotations

import json
import random
import sys
from pathlib import Path

from cadenza.kvfs.records import Naming
from cadenza.kvfs.store import Store
from tests.kvfs.storing import LAYOUT, LIMIT, put


def tell(what: str, number: int, *more: object) -> None:
    sys.stdout.write(json.dumps([what, number, *more]) + "\n")
    sys.stdout.flush()


def work(directory: Path, chosen: random.Random) -> None:
    store = Store(directory, LAYOUT, LIMIT)
    tell("open", 0)
    while True:
        act = chosen.random()
        numbers = list(store.files)
        if act < 0.6 or not numbers:
            number = chosen.choice(numbers) if numbers and chosen.random() < 0.5 else store.new_number()
            seeds = [chosen.randrange(10_000) for _ in range(chosen.randint(0, 4))]
            path = f"/home/ada/{number}/{chosen.randrange(1000)}"
            tell("begin", number, path, seeds)
            put(store, number, path, seeds)
            tell("put", number, path, seeds)
        elif act < 0.8:
            number, path = chosen.choice(numbers), f"/home/ada/moved/{chosen.randrange(10_000)}"
            tell("begin-rename", number, path)
            store.rename(number, Naming("ada", (path,)))
            tell("rename", number, path)
        elif act < 0.95:
            number = chosen.choice(numbers)
            tell("begin-drop", number)
            store.drop(number)
            tell("drop", number)
        else:
            store.compact()


if __name__ == "__main__":
    work(Path(sys.argv[1]), random.Random(int(sys.argv[2])))
