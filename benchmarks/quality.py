"""What reuse costs in truth: the bundled model's answers over prompt modules, under every policy.

A question stands in one user turn after four modules of facts, of one seed never met in training: about a fact of one
module, or about the friend of somebody, told in another module than what the friend does. Each policy answers it, and
is compared with a full prefill of the same tokens at the same positions:

    accuracy    answers equal to the true one, to the last sign
    agreement   tokens of the full prefill's answer that are also this policy's likeliest
    divergence  KL of the full prefill's next token to this policy's, mean over the full prefill's answer, in nats; over
                its 32 likeliest tokens and all the others as one

Packed, the modules and the question are one user turn, as in training. In slots, left out by `--quick`, the modules are
a system turn and the question is a user turn after it. Of six modules, of some 17 tokens each, four are imported; in
slots the others leave gaps, for every policy. The scaffold is of the four that are imported. Rooted modules are encoded
after the begin token and the opening of the turn, which are always before them, instead of alone.
"""

from __future__ import annotations

import io
import json
import random
import tempfile
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.harness import Figures, run
from cadenza.kernel.kernel import Kernel
from cadenza.server.boot import boot
from cadenza.server.options import ServeOptions
from train.tasks.facts import FRIEND, PERSON_RELATIONS, Fact, Scene
from train.world import Split, World

PACKAGE = Path(__file__).resolve().parents[1] / "inferlets" / "prompt_modules"
EPIC = ("epic-0", "epic-4", "epic-8", "epic-16", "epic-32")
POLICIES = ("full", "prefix", "modules", "scaffold", *EPIC, "rooted scaffold", *(f"rooted {name}" for name in EPIC))
FACTS_EACH = 2
IMPORTED, LEFT_OUT = 4, 2
AT_ONCE = 12
SEED = 1

PROGRAM = '''
import asyncio, json, math
import cadenza
from prompt_modules import *
from prompt_modules.library import Library

LIKELY = 32

def schema(item, packed):
    modules = [Module(f"m{number}", text) for number, text in enumerate(item["modules"])]
    members = [f"m{number}" for number in item["imported"]]
    return Schema("facts", [Turn("user" if packed else "system", modules)], [Scaffold("all", members)])

def prompt(item, packed):
    imports = [Import(f"m{number}") for number in item["imported"]]
    return Prompt("facts", [*imports, item["question"] if packed else Turn("user", item["question"])])

async def judged(context, answer, probes):
    """Probes of the prompt's last row and of the answer's, in one pass."""
    asked = [(row, probe) for row, row_probes in enumerate(probes) for probe in row_probes]
    last = context.plan.positions[-1]
    tokens = [context.plan.tokens[-1], *answer[:-1]]
    done = await cadenza.forward(context.file, tokens, positions=range(last, last + len(tokens)), probes=asked)
    return done.probes

def divergence(top, others):
    rest = max(1.0 - math.fsum(map(math.exp, others)), 1e-9)
    tail = top.tail * (math.log(top.tail) - math.log(rest)) if top.tail > 0 else 0.0
    return tail + math.fsum(math.exp(one) * (one - other) for one, other in zip(top.log_probabilities, others))

async def begun(library, asked, policy):
    """Two contexts of one prompt, computed but for its last token."""
    context = await library.context(asked, policy)
    await context.prefill()
    return context, context.fork()

async def compared(library, asked, item, policy, answer, tops):
    context, judge = await begun(library, asked, policy)
    async with context, judge:
        said = await context.generate(max_tokens=60, deliver_every=60).text()
        probes = [(cadenza.LogProbabilities(top.tokens), cadenza.Top(1)) for top in tops]
        answers = await judged(judge, answer, probes)
        plan = context.plan
    near = [divergence(top, others) for top, others in zip(tops, answers[::2])]
    same = [one.tokens[0] == top.tokens[0] for one, top in zip(answers[1::2], tops)]
    return {"right": said == item["answer"], "same": sum(same), "near": max(0.0, math.fsum(near)), "tokens": len(tops),
            "computed": plan.computed_tokens, "all": plan.computed_tokens + plan.reused_tokens}

async def measured(number, item, packed):
    folder = f"quality/{packed}/{number}"
    with Library(schema(item, packed), folder) as library:
        asked = prompt(item, packed)
        full, judge = await begun(library, asked, Policy("full", packed=packed))
        async with full, judge:
            generation = full.generate(max_tokens=60, deliver_every=60)
            await generation.text()
            tops = await judged(judge, generation.tokens, [(cadenza.Top(LIKELY),)] * len(generation.tokens))
        rows = {name: await compared(library, asked, item, Policy.named(name, packed), generation.tokens, tops)
                for name in args.policies}
    for entry in cadenza.kv.list_directory(folder):
        cadenza.kv.unlink(f"{folder}/{entry.name}")
    cadenza.send(json.dumps([item["set"], packed, rows]))

async def main(given):
    global args
    args = given
    items = json.loads(open("items.json").read())
    for first in range(0, len(items), args.at_once):
        some = list(enumerate(items))[first : first + args.at_once]
        await asyncio.gather(*(measured(number, item, packed) for number, item in some for packed in args.packed))
'''


@dataclass(frozen=True)
class Item:
    """A question; `modules` are texts, `imported` the numbers of those asked for."""

    set: str
    modules: list[str]
    imported: list[int]
    question: str
    answer: str


def question_of_one(world: World) -> Item:
    """The answer lies in one module."""
    facts = Scene(world, FACTS_EACH * IMPORTED, FACTS_EACH * IMPORTED).facts
    fact = world.choice(facts)
    return item_of("one", world, [facts[at :: IMPORTED] for at in range(IMPORTED)], fact, fact)


def question_of_two(world: World) -> Item:
    """Who the friend is stands in one module, what is told of the friend in another."""
    facts = Scene(world, FACTS_EACH * IMPORTED - 2, FACTS_EACH * IMPORTED - 2).facts
    subject, friend = world.name(), world.name()
    relation = world.choice(PERSON_RELATIONS)
    fact = Fact(relation, friend, relation.value(world))
    groups = [facts[at::IMPORTED] for at in range(IMPORTED)]
    there, here = world.random.sample(range(IMPORTED), 2)
    groups[there].insert(world.random.randint(0, len(groups[there])), Fact(FRIEND, friend, subject))
    groups[here].insert(world.random.randint(0, len(groups[here])), fact)
    return item_of("two", world, groups, Fact(relation, f"the friend of {subject}", fact.value), fact)


def item_of(kind: str, world: World, groups: Sequence[Sequence[Fact]], asked: Fact, answer: Fact) -> Item:
    """The groups become modules, among others that are not imported."""
    texts = ["".join(fact.statement(world) + " " for fact in group) for group in groups]
    others = ["".join(fact.statement(world) + " " for fact in Scene(world, FACTS_EACH, FACTS_EACH).facts)
              for _ in range(LEFT_OUT)]
    imported = sorted(world.random.sample(range(IMPORTED + LEFT_OUT), IMPORTED))
    rest = iter(others)
    remaining = iter(texts)
    modules = [next(remaining) if number in imported else next(rest) for number in range(IMPORTED + LEFT_OUT)]
    return Item(kind, modules, imported, asked.question(world), answer.answer())


def items(count: int) -> list[Item]:
    source = random.Random(f"quality {SEED}")
    makers = (question_of_one, question_of_two)
    return [make(World(source, Split.HELD_OUT)) for _ in range(count) for make in makers]


def upload(questions: Sequence[Item]) -> bytes:
    """The program, the library and the questions."""
    written = io.BytesIO()
    with zipfile.ZipFile(written, "w") as archive:
        archive.writestr("main.py", PROGRAM)
        archive.writestr("items.json", json.dumps([vars(item) for item in questions]))
        for path in sorted(PACKAGE.glob("*.py")):
            archive.writestr(f"prompt_modules/{path.name}", path.read_text())
    return written.getvalue()


async def answered(kernel: Kernel, questions: Sequence[Item], packed: Sequence[bool]) -> list[Any]:
    """(set, packed, what each policy did) of every question."""
    image = await kernel.images.add("bench", upload(questions))
    arguments = {"policies": POLICIES, "packed": packed, "at_once": AT_ONCE}
    process = kernel.spawn("bench", image.digest, json.dumps(arguments))
    found: list[Any] = []
    seen = 0
    while process.exit is None or process.output.read(seen)[0]:
        await process.output.changed(seen)
        for event in process.output.read(seen)[0]:
            seen = event.sequence
            if event.kind == "message":
                found.append(json.loads(event.text))
            else:
                print(event.text, end="", flush=True)
    assert process.exit.ending == "finished", process.exit
    return found


def share(rows: Sequence[dict[str, Any]], of: str, over: str = "") -> float:
    total = sum(row[over] for row in rows) if over else len(rows)
    return float(sum(row[of] for row in rows) / total)


def table(found: Sequence[Any], packed: bool) -> tuple[str, Figures]:
    """Lines for people, figures by policy."""
    lines = ["policy           computed  one module: accuracy agreement divergence  two: accuracy agreement divergence"]
    figures: Figures = {}
    for policy in POLICIES:
        line = ""
        for kind in ("one", "two"):
            rows = [rows[policy] for of, where, rows in found if (of, where) == (kind, packed)]
            right, same, near = share(rows, "right"), share(rows, "same", "tokens"), share(rows, "near", "tokens")
            line += f"{right:{22 if kind == 'one' else 14}.1%} {same:9.1%} {near:10.4f}"
            figures |= {f"{policy}_{kind}_accuracy": right, f"{policy}_{kind}_agreement": same,
                        f"{policy}_{kind}_kl": near}
        rows = [rows[policy] for _, where, rows in found if where == packed]
        lines.append(f"{policy:16} {share(rows, 'computed', 'all'):8.0%}{line}")
    return "\n".join(lines), figures


def points(figures: Figures, policy: str) -> float:
    """How many points of accuracy a policy falls short of the full prefill, on the worse set."""
    short = [figures[f"full_{kind}_accuracy"] - figures[f"{policy}_{kind}_accuracy"] for kind in ("one", "two")]
    return float(100 * max(short))


async def measure(quick: bool) -> Figures:
    questions = items(30 if quick else 200)
    ways = {True: "packed"} if quick else {True: "packed", False: "slots"}
    with tempfile.TemporaryDirectory(prefix="cadenza-bench-") as state:
        kernel = await boot(ServeOptions(state=Path(state)))
        try:
            found = await answered(kernel, questions, [*ways])
            kernel.recount()
        finally:
            await kernel.close()
    result: Figures = {}
    for packed, name in ways.items():
        text, figures = table(found, packed)
        print(f"{name}\n{text}", flush=True)
        figures |= {f"{policy}_points": points(figures, policy) for policy in POLICIES[1:]}
        result |= {f"{name}_{key}".replace("-", "_").replace(" ", "_"): value for key, value in figures.items()}
    return result


if __name__ == "__main__":
    run(__doc__, measure)
