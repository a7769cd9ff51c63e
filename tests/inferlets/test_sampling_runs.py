"""Every sampling method in Wasm, on the bundled model: it finishes, says something, and gives its pages back."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from cadenza.inferlets.sampling import methods
from cadenza.kernel.kernel import Kernel
from cadenza.sdk.client.sources import read_program
from cadenza.server.boot import boot
from cadenza.server.options import ServeOptions

pytestmark = pytest.mark.slow
FOLDER = Path(methods.__path__[0]).parent
QUESTION = "What is 48 times 37?"
SHARED = {"distribution", "keyed", "loop", "__init__"}
METHODS = sorted(path.stem for path in (FOLDER / "methods").glob("*.py") if path.stem not in SHARED)
TEXT = {"prompt": "Once", "max_tokens": 12}
# The bundled model repeats itself; a watermark needs choices.
HOT = {"max_tokens": 60, "temperature": 30, "min_p": 0}
MORE: dict[str, dict[str, Any]] = {
    "classifier_free": {"question": QUESTION, "guidance": 1}, "contrastive": {"temperature": 1, "amateur_tokens": 2},
    "eta": {"epsilon": 0.0001}, "green_list": {**HOT, "min_p": 0.02, "delta": 100, "seed": 1}, "gumbel": HOT,
    "self_consistency": {"n": 3}, "tree_of_thought": {"question": QUESTION, "steps": 2, "thoughts": 2},
    "typical": {"mass": 1}, "xtc": {"min_p": 0},
}


# With these, each takes the likeliest token all along.
GREEDY: dict[str, dict[str, Any]] = {
    "classifier_free": {"guidance": 1}, "contrastive": {"alpha": 1}, "dry": {"multiplier": 0}, "eta": {},
    "green_list": {"delta": 0}, "gumbel": {}, "mirostat": {}, "top_n_sigma": {}, "typical": {"mass": 1},
    "xtc": {"probability": 0},
}
PLAIN = """
import cadenza
async def main(args):
    async with cadenza.Context() as context:
        context.user(args.question)
        return await context.generate(args.max_tokens).text()
"""


async def run_one(kernel: Kernel, digest: str, arguments: dict[str, Any]) -> str:
    """What it prints. It ends well, and nothing is left of it."""
    process = kernel.spawn("ada", digest, json.dumps(arguments))
    status = await asyncio.wait_for(process.ended(), 60)
    events = process.output.read(0)[0]
    assert status.ending == "finished", (arguments, status, "".join(event.text for event in events))
    kernel.recount()
    assert kernel.statistics()["kv_used"] == 0
    return "".join(event.text for event in events if event.kind == "output")


async def run_all(state: Path) -> dict[str, list[str]]:
    kernel = await boot(ServeOptions(state=state, threads=1))
    try:
        image = await kernel.images.add("ada", read_program(FOLDER).data)
        runs = {name: {"method": name, **TEXT, **MORE.get(name, {})} for name in METHODS}
        found = {name: [await run_one(kernel, image.digest, runs[name]) for _ in range(2)] for name in METHODS}
        greedy = {"question": QUESTION, "max_tokens": 12, "temperature": 0}
        plain = await kernel.images.add("ada", PLAIN.encode())
        marked = [{**runs["green_list"], "seed": seed} for seed in range(6)]
        found["marked"] = [await run_one(kernel, image.digest, each) for each in marked]
        found["plain"] = [await run_one(kernel, plain.digest, greedy)]
        for name, more in GREEDY.items():
            found[name].append(await run_one(kernel, image.digest, {"method": name, **greedy, **more}))
        return found
    finally:
        await kernel.close()


@pytest.fixture(scope="module")
def said(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    return asyncio.run(run_all(tmp_path_factory.mktemp("state")))


@pytest.mark.parametrize("name", METHODS)
def test_a_method_says_something_and_the_same_again(said: dict[str, list[str]], name: str) -> None:
    first, again = said[name][:2]
    assert first.strip()
    assert first == again


@pytest.mark.parametrize("name", GREEDY)
def test_a_method_that_takes_the_likeliest_says_what_a_plain_run_says(said: dict[str, list[str]], name: str) -> None:
    assert said[name][2].partition("z = ")[0] == said["plain"][0]


@pytest.mark.parametrize("name", ["marked", "gumbel"])
def test_a_watermark_is_found_in_what_was_said(said: dict[str, list[str]], name: str) -> None:
    """In the longest text: some end after a word."""
    found = [each.rpartition("z = ")[2].split() for each in said[name]]
    z, tokens = max(((float(z), int(tokens)) for z, _, tokens, *_ in found), key=lambda pair: pair[1])
    assert tokens >= 10
    assert z > 4


def test_main_knows_every_method() -> None:
    assert [name for name in METHODS if f'"{name}"' not in (FOLDER / "main.py").read_text()] == []
    assert len(METHODS) == 12
