"""Files as the leaderboard's, made up: for who has none of it at hand. Calls are shorter there, and all much alike."""

from __future__ import annotations

import json
import random
from collections.abc import Iterable
from pathlib import Path
from typing import Any

NOUNS = ("hotel", "flight", "invoice", "ticket", "parcel", "meeting", "recipe", "patient", "playlist", "account")
VERBS = ("find", "get", "book", "cancel", "update", "compare", "rate", "share")
PARAMETERS: dict[str, tuple[str, tuple[Any, ...]]] = {
    "city": ("string", ("Oslo", "Lagos", "Lima", "New York")), "name": ("string", ("Ada Byron", "Kofi", "Mei Lin")),
    "date": ("string", ("2026-03-14", "2025-12-01")), "count": ("integer", (2, 5, 12, 40)),
    "limit": ("float", (0.5, 99.9, 1500.0)), "strict": ("boolean", (True, False)),
}
QUESTIONS = 60


def write(directory: Path) -> None:
    """Writes them; always the same."""
    source = random.Random(0)
    for noun in NOUNS:
        _write(directory / f"doc_{noun}.json", (_function(noun, verb, source) for verb in VERBS))
    for name in ("parallel", "parallel_multiple"):
        solved = [_question(f"{name}_{number}", source) for number in range(QUESTIONS)]
        _write(directory / f"{name}.json", (question for question, _ in solved))
        _write(directory / f"pa_{name}.json", (truth for _, truth in solved))


def _function(noun: str, verb: str, source: random.Random) -> dict[str, Any]:
    chosen = source.sample(sorted(PARAMETERS), source.randint(0, 3))
    properties = {name: {"type": PARAMETERS[name][0], "description": f"The {name} of the {noun}."} for name in chosen}
    return {"name": f"{verb}_{noun}", "description": f"Tool description: {verb.capitalize()} a {noun}.",
            "parameters": {"type": "dict", "properties": properties, "required": chosen}}


def _question(identity: str, source: random.Random) -> tuple[dict[str, Any], dict[str, Any]]:
    functions = [_function(noun, source.choice(VERBS), source) for noun in source.sample(NOUNS, source.randint(2, 4))]
    truth = [{one["name"]: {name: [source.choice(PARAMETERS[name][1])] for name in one["parameters"]["required"]}}
             for one in functions]
    asked = " ".join(one["description"].partition(": ")[2] for one in functions)
    return ({"id": identity, "question": [[{"role": "user", "content": asked}]], "function": functions},
            {"id": identity, "ground_truth": truth})


def _write(path: Path, lines: Iterable[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
