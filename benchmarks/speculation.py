"""Speculation: how many tokens a pass says when drafts come from tables, and how much sooner programs end.

Text replay: code and documents of this repository, cut into the bundled model's tokens, are said as they are by a model
that knows them; every fourth file is said, the frozen table is made of the others. Tokens a pass, the one that every
pass samples included, with drafts of 24. Then the bundled model through four programs in Wasm, on its own worker:
held-out dialogues, each program's plain and speculating in turn; and with drafts that are always wrong, and with text
drawn at a temperature that nobody could guess. What is said is the same each time.
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
Drafter = Stream | Lookup
Said = list[list[list[int]]]


# --- text replay ---

def replay(kind: str, tokens_each: int, texts: int) -> Figures:
    model = resolve_directory(None)
    tokenizer = Tokenizer.from_directory(model, ModelConfig.from_directory(model))
    files = sorted(path for pattern in TEXTS[kind] for path in ROOT.glob(pattern))
    tokens = [tokenizer.encode(path.read_text(), False) for path in files]
    said = [each[:tokens_each] for each in tokens[::4] if len(each) >= tokens_each // 2][:texts]
    frozen = Table.frozen([each for number, each in enumerate(tokens) if number % 4], leaders=16_384)
    learning, both = Table(), Table()
    drafters: dict[str, Callable[[], Drafter]] = {
        f"accepted_dual_{kind}": lambda: Stream(both, frozen),
        f"accepted_dynamic_{kind}": lambda: Stream(learning, None),
        f"accepted_frozen_{kind}": lambda: Stream(None, frozen),
        f"prompt_lookup_{kind}": Lookup,
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


async def faster(kernel: Kernel, kind: str, prompts: list[list[str]], rounds: int, tokens: int,
                 temperature: float = 0.0) -> float:
    """Plain decoding's time over that of this kind of speculation; the median of rounds that take turns."""
    found: list[float] = []
    for _ in range(rounds):
        plain, said = await ends(kernel, "plain", prompts, temperature, tokens)
        seconds, also = await ends(kernel, kind, prompts, temperature, tokens)
        assert said == also, "speculation changes what is said"
        print(f"  {kind} at temperature {temperature}: {plain:.2f} s plainly, {seconds:.2f} s; {plain / seconds:.3f}",
              flush=True)
        found.append(plain / seconds)
    return median(found)


async def measure(quick: bool) -> Figures:
    figures: Figures = {}
    for kind in TEXTS:
        figures |= replay(kind, 1200, 3 if quick else 12)
    each, rounds, tokens = (2, 3, 128) if quick else (6, 5, 256)
    prompts = [[question.before for question in held_out_questions(kind, each, 7)[:each]] for kind in DIALOGUES]
    assert len(prompts) == PROGRAMS
    with tempfile.TemporaryDirectory(prefix="cadenza-bench-") as state:
        kernel = await boot(ServeOptions(state=Path(state), threads=1))
        try:
            await kernel.images.add(USER, upload(), name="drafts")
            await ends(kernel, "plain", prompts, 0.0, 8)
            figures["wall_4"] = await faster(kernel, "cacheback", prompts, rounds, tokens)
            figures["prompt_lookup_wall_4"] = await faster(kernel, "prompt_lookup", prompts, rounds, tokens)
            wrong = await faster(kernel, "wrong", prompts, rounds, tokens)
            hot = await faster(kernel, "cacheback", prompts, rounds, tokens, temperature=2.0)
            figures |= {"wall_when_wrong": wrong, "wall_when_hot": hot, "worst_when_failing": min(wrong, hot)}
        finally:
            await kernel.close()
    return figures


if __name__ == "__main__":
    run(__doc__, measure)
