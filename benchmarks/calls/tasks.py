"""Tasks made of the Berkeley function calling leaderboard: which calls solve them, how long each of those takes.

*Parallel*: the questions of its parallel files, with the calls of the ground truth, all independent. *Multi-step*:
three chains of one to five calls, each of functions of one of its interfaces for tasks of several turns (files,
trading, travel, …); each call of a chain needs the result of the one before it. The chains of a task are equally long,
one to five in turn; *uneven* ones have lengths of their own. Execution times are log-normal (σ 0.6), cut to 30 … 500
ms, mean 110 ms.
"""

from __future__ import annotations

import json
import math
import random
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import NormalDist, mean
from typing import Any

PARALLEL = ("parallel", "parallel_multiple")
SHORTEST, LONGEST, MEAN, SPREAD = 0.030, 0.500, 0.110, 0.6
CHAINS, MOST_STEPS = 3, 5
VALUE_CHARACTERS = 16                 # names and words, as arguments of these interfaces are; no sequences of genes

Document = dict[str, Any]


@dataclass(frozen=True)
class Call:
    """One call of a solution. `code`: as it is said; `value`: what it returns, after `seconds`."""

    name: str
    code: str
    value: str
    seconds: float


@dataclass(frozen=True)
class Task:
    """`chains` of calls: each needs the result of the one before it in its chain."""

    number: int
    question: str
    functions: tuple[str, ...]
    chains: tuple[tuple[Call, ...], ...]

    @property
    def calls(self) -> list[Call]:
        return [call for chain in self.chains for call in chain]

    def scaled(self, factor: float) -> Task:
        """The same with execution times so many times as long."""
        chains = tuple(tuple(replace(call, seconds=call.seconds * factor) for call in chain) for chain in self.chains)
        return replace(self, chains=chains)


@dataclass(frozen=True)
class Solved:
    """A question of the leaderboard: `codes` are (function, call as it is written) of the ground truth."""

    question: str
    functions: dict[str, str]
    codes: tuple[tuple[str, str], ...]


def solved_questions(directory: Path) -> Iterator[Solved]:
    """Of the parallel files. Raises OSError when they are not there."""
    for name in PARALLEL:
        truths = {line["id"]: line["ground_truth"] for line in lines(directory / f"pa_{name}.json")}
        for line in lines(directory / f"{name}.json"):
            functions = {plain(function["name"]): declared(function) for function in line["function"]}
            codes = tuple(written(call) for call in truths[line["id"]])
            yield Solved(line["question"][0][-1]["content"], functions, codes)


def parallel_tasks(directory: Path, count: int, seed: int) -> list[Task]:
    """So many of all questions, evenly from those with short calls to those with long ones."""
    source = random.Random(f"parallel {seed}")
    questions = sorted(solved_questions(directory), key=lambda one: mean(len(code) for _, code in one.codes))
    chosen = [questions[(2 * place + 1) * len(questions) // (2 * count)] for place in range(count)]
    return [Task(number, one.question, tuple(one.functions.values()),
                 tuple((timed(code, source),) for code in one.codes)) for number, one in enumerate(chosen)]


def multistep_tasks(directory: Path, count: int, seed: int, *, even: bool = True) -> list[Task]:
    """`even`: the three chains of a task are equally long."""
    source = random.Random(f"multi-step {seed}")
    interfaces = [list(lines(path)) for path in sorted(directory.glob("doc_*.json"))]
    values = Values(directory)
    lengths = [[1 + number % MOST_STEPS] * CHAINS if even else [source.randint(1, MOST_STEPS) for _ in range(CHAINS)]
               for number in range(count)]
    return [multistep_task(number, each, interfaces, values, source) for number, each in enumerate(lengths)]


def multistep_task(number: int, lengths: list[int], interfaces: Sequence[list[Document]], values: Values,
                   source: random.Random) -> Task:
    chosen = [source.sample(functions, length)
              for functions, length in zip(source.sample(interfaces, CHAINS), lengths, strict=True)]
    asked = " Also: ".join(" Then: ".join(purpose(function) for function in chain) for chain in chosen)
    chains = tuple(tuple(timed((plain(one["name"]), values.call(one, source)), source) for one in chain)
                   for chain in chosen)
    return Task(number, asked, tuple(declared(function) for chain in chosen for function in chain), chains)


class Values:
    """Arguments for documented functions: of an enumeration what it lists, else what the ground truth of the parallel
    files has of that type."""

    def __init__(self, directory: Path) -> None:
        self._known: dict[str, list[str]] = {"string": [], "integer": [], "float": []}
        for name in PARALLEL:
            for line in lines(directory / f"pa_{name}.json"):
                for call in line["ground_truth"]:
                    for arguments in call.values():
                        self._learn(values[0] for values in arguments.values() if values[0] != "")

    def _learn(self, values: Iterable[Any]) -> None:
        types = {str: "string", int: "integer", float: "float"}
        for value in values:
            if type(value) in types and len(str(value)) <= VALUE_CHARACTERS:
                self._known[types[type(value)]].append(literal(value))

    def call(self, function: Document, source: random.Random) -> str:
        """With the arguments that it needs."""
        properties = function["parameters"]["properties"]
        used = {name: properties[name] for name in function["parameters"]["required"]}
        said = [f"{name}={self._value(about, about['type'], source)}" for name, about in used.items()]
        return f"{plain(function['name'])}({', '.join(said)})"

    def _value(self, about: Document, kind: str, source: random.Random) -> str:
        listed = re.search(r"\[Enum\]: \[?([^\]]+)", about.get("description", ""))
        if kind == "array":
            return f"[{', '.join(self._value(about, about['items']['type'], source) for _ in range(2))}]"
        if kind == "dict":
            return f'{{"status": {self._value({}, "string", source)}}}'
        if kind == "boolean":
            return source.choice(("True", "False"))
        if listed and kind == "string":
            return literal(source.choice(listed[1].split(",")).strip(' ".'))
        return source.choice(self._known[kind])


def purpose(function: Document) -> str:
    return str(function["description"]).rpartition("Tool description: ")[2]


def timed(code: tuple[str, str], source: random.Random) -> Call:
    return Call(*code, f"{source.randint(1, 99_999) / 100:g}", execution_seconds(source))


def execution_seconds(source: random.Random) -> float:
    while not SHORTEST <= (seconds := source.lognormvariate(LOCATION, SPREAD)) <= LONGEST:
        pass
    return seconds


def truncated_mean(location: float) -> float:
    """Of exp(N(location, SPREAD²)) between SHORTEST and LONGEST."""
    below, above = ((math.log(edge) - location) / SPREAD for edge in (SHORTEST, LONGEST))
    normal = NormalDist().cdf
    whole = math.exp(location + SPREAD**2 / 2)
    return whole * (normal(above - SPREAD) - normal(below - SPREAD)) / (normal(above) - normal(below))


def _location() -> float:
    """By halving: `truncated_mean` grows with it."""
    low, high = math.log(SHORTEST) - 3, math.log(LONGEST) + 3
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if truncated_mean(middle) < MEAN else (low, middle)
    return low


LOCATION = _location()


def written(call: dict[str, dict[str, list[Any]]]) -> tuple[str, str]:
    """The function's name, and the call with the first of the accepted values; what may be left out is."""
    (name, arguments), = call.items()
    said = [f"{key}={literal(values[0])}" for key, values in arguments.items() if values[0] != ""]
    return plain(name), f"{plain(name)}({', '.join(said)})"


def literal(value: Any) -> str:
    """As Python writes it, texts in double quotes. In a dictionary every value is a list of accepted ones."""
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, dict):
        inside = {key: each[0] if isinstance(each, list) and each else each for key, each in value.items()}
        return "{" + ", ".join(f"{literal(key)}: {literal(each)}" for key, each in inside.items()) + "}"
    if isinstance(value, list):
        return f"[{', '.join(map(literal, value))}]"
    return repr(value)


def declared(function: Document) -> str:
    """One line: the name, the arguments, the first sentence of the description."""
    arguments = ", ".join(function["parameters"].get("properties", {}))
    return f"{plain(function['name'])}({arguments}): {purpose(function).partition('. ')[0]}"


def plain(name: str) -> str:
    """A name that Python takes, as the leaderboard itself does for models that want it."""
    return name.replace(".", "_").replace("-", "_")


def lines(path: Path) -> Iterator[Document]:
    for line in path.read_text().splitlines():
        yield json.loads(line)
