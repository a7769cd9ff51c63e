"""Speculation: how many tokens a pass says when drafts come from tables, and how much sooner programs end.

Text replay: code and documents of this repository, cut into the bundled model's tokens, are said as they are by a model
that knows them; every fourth file is said, the frozen table and the model of n-grams are made of the others. Tokens a
pass, the one that every pass samples included, with drafts of 24. Then the bundled model through four programs in Wasm,
on its own worker: held-out dialogues, plain and speculating in turn; and with drafts that are always wrong, and with
text drawn at a temperature that nobody could guess. What is said is the same each time.
"""

from __future__ import annotations

import io
import json
import tempfile
import time
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median

from benchmarks.harness import Figures, run
from cadenza.inferlets.speculation.ngrams import Ngrams, Ways
from cadenza.inferlets.speculation.stream import Lookup, Stream
from cadenza.inferlets.speculation.table import Table
from cadenza.kernel.kernel import Kernel
from cadenza.kernel.model.config import ModelConfig
from cadenza.kernel.model.directory import resolve_directory
from cadenza.kernel.model.tokenizer import Tokenizer
from cadenza.server.boot import boot
from cadenza.server.options import ServeOptions
from train.evaluate import held_out_questions

ROOT = Path(__file__).resolve().parents[1]
TEXTS = {"code": ("kernel/*.py", "kvfs/*.py", "syscalls/*.py"),
         "documents": ("docs/*.md", "*.md", "benchmarks/*.md", "inferlets/*.md", "train/*.md", "examples/*/*.md")}
PROMPT_TOKENS, DRAFT_TOKENS = 64, 24
DIALOGUES = ("interview", "recall_interview", "multi_step", "interrupts")
PROGRAMS, USER = 4, "bench"
Drafter = Stream | Lookup | Ways
Said = list[list[list[int]]]


# --- text replay ---

def replay(kind: str, tokens_each: int, texts: int, learnt_each: int) -> Figures:
    """The frozen tables are made of so many tokens of each of the others."""
    model = resolve_directory(None)
    tokenizer = Tokenizer.from_directory(model, ModelConfig.from_directory(model))
    files = sorted(path for pattern in TEXTS[kind] for path in ROOT.glob(pattern))
    tokens = [tokenizer.encode(path.read_text(), False) for path in files]
    said = [each[:tokens_each] for each in tokens[::4] if len(each) >= tokens_each // 2][:texts]
    others = [each[:learnt_each] for number, each in enumerate(tokens) if number % 4]
    frozen, ngrams = Table.frozen(others, leaders=16_384), Ngrams(others)
    learning, both = Table(), Table()
    drafters: dict[str, Callable[[], Drafter]] = {
        f"accepted_dual_{kind}": lambda: Stream(both, frozen),
        f"accepted_dynamic_{kind}": lambda: Stream(learning, None),
        f"accepted_frozen_{kind}": lambda: Stream(None, frozen),
        f"prompt_lookup_{kind}": Lookup,
        f"accepted_ngrams_{kind}": lambda: Ways(ngrams),
    }
    figures = {name: tokens_a_pass(said, drafter) for name, drafter in drafters.items()}
    print(f"{kind}: {sum(map(len, said))} tokens of {len(said)} texts, {len(frozen)} leaders in the frozen table; "
          + ", ".join(f"{name} {value:.2f}" for name, value in figures.items()), flush=True)
    return figures


def tokens_a_pass(texts: Sequence[Sequence[int]], drafter: Callable[[], Drafter]) -> float:
    """Over all texts, each going on from its beginning."""
    tokens = passes = 0
    for text in texts:
        drafts, at = drafter(), PROMPT_TOKENS
        drafts.follow(text[:at])
        while at < len(text):
            drafts.learn()
            come = text[at : at + 1 + len(drafts.draft(DRAFT_TOKENS).way(text[at:]))]
            drafts.follow(come)
            at, passes = at + len(come), passes + 1
        tokens += len(text) - PROMPT_TOKENS
    return tokens / passes


# --- through programs ---

def upload() -> bytes:
    written = io.BytesIO()
    with zipfile.ZipFile(written, "w") as archive:
        archive.writestr("main.py", (Path(__file__).parent / "drafts" / "program.py").read_text())
        for path in sorted((ROOT / "inferlets" / "speculation").glob("*.py")):
            archive.writestr(f"speculation/{path.name}", path.read_text())
    return written.getvalue()


async def ends(kernel: Kernel, kind: str, prompts: list[list[str]], temperature: float,
               tokens: int) -> tuple[float, Said]:
    """Seconds until the last of the programs has ended, each with its own prompts; what each said."""
    began = time.perf_counter()
    processes = [kernel.spawn(USER, "drafts", json.dumps({"kind": kind, "prompts": its, "temperature": temperature,
                                                          "max_tokens": tokens})) for its in prompts]
    statuses = [await process.ended() for process in processes]
    seconds = time.perf_counter() - began
    said: Said = []
    for process, status in zip(processes, statuses, strict=True):
        text = "".join(event.text for event in process.output.read(0)[0])
        if status.ending != "finished":
            raise RuntimeError(f"{status.ending}: {status.message}\n{text}")
        report = json.loads(text)
        said.append(report["said"])
        passes, drafted, accepted = report["counts"]
        if process is processes[0] and passes:
            pace = ", ".join(f"{each * 1000:.2f}" for each in report["pace"])
            print(f"    {passes} passes, {drafted} tokens drafted, {accepted} accepted; plain, t0 and t1: {pace} ms",
                  flush=True)
    return seconds, said


async def faster(kernel: Kernel, kinds: Sequence[str], prompts: list[list[str]], rounds: int, tokens: int,
                 temperature: float = 0.0) -> list[float]:
    """Plain decoding's time over that of each kind of speculation; medians of rounds, in which all take turns."""
    found: list[list[float]] = []
    for number in range(rounds):
        seconds: dict[str, float] = {}
        said: dict[str, Said] = {}
        for kind in ("plain", *kinds)[:: 1 - number % 2 * 2]:
            seconds[kind], said[kind] = await ends(kernel, kind, prompts, temperature, tokens)
        assert all(said[kind] == said["plain"] for kind in kinds), "speculation changes what is said"
        found.append([seconds["plain"] / seconds[kind] for kind in kinds])
        print(f"  at temperature {temperature}: {seconds['plain']:.2f} s plainly; times that of "
              + ", ".join(f"{kind} {ratio:.3f}" for kind, ratio in zip(kinds, found[-1], strict=True)), flush=True)
    return [median(each) for each in zip(*found, strict=True)]


async def measure(quick: bool) -> Figures:
    figures: Figures = {}
    for kind in TEXTS:
        figures |= replay(kind, 1200, *((3, 8000) if quick else (12, 1 << 20)))
    each, rounds, tokens = (2, 3, 96) if quick else (6, 5, 256)
    prompts = [[question.before for question in held_out_questions(kind, each, 7)[:each]] for kind in DIALOGUES]
    assert len(prompts) == PROGRAMS
    kinds = ("cacheback", "wrong") if quick else ("cacheback", "wrong", "prompt_lookup")
    with tempfile.TemporaryDirectory(prefix="cadenza-bench-") as state:
        kernel = await boot(ServeOptions(state=Path(state), threads=1))
        try:
            await kernel.images.add(USER, upload(), name="drafts")
            await ends(kernel, "plain", prompts, 0.0, 8)
            wall, wrong, *lookup = await faster(kernel, kinds, prompts, rounds, tokens)
            hot, = await faster(kernel, ("cacheback",), prompts, rounds, tokens, temperature=2.0)
        finally:
            await kernel.close()
    figures |= {"wall_4": wall, "wall_when_wrong": wrong, "wall_when_hot": hot, "worst_when_failing": min(wrong, hot)}
    return figures | ({"prompt_lookup_wall_4": lookup[0]} if lookup else {})


if __name__ == "__main__":
    run(__doc__, measure)
