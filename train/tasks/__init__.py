"""Every kind of task, and how often training meets each. A new kind is a new object in `KINDS`."""

from __future__ import annotations

import random

from train.dialogue import Dialogue, Role, system
from train.tasks import calls, context, listing, lookup, smalltalk
from train.tasks.arithmetic import Story, Sum
from train.tasks.calls import Calling
from train.tasks.context import InContext, Recall, ThroughFriend
from train.tasks.documents import Documents
from train.tasks.medley import Medley
from train.tasks.pairs import Pairs
from train.tasks.task import Task
from train.world import PIECES, Pieces, Split, World

PREAMBLES = (
    "You are a helpful assistant.",
    "You are Cadenza's small model.",
    "Be brief.",
    "Answer in one sentence.",
    "Answer truthfully.",
    "Use the tools when you need them.",
    "You have the tools calculator, weather and clock.",
)

SIMPLE: dict[Task, float] = {
    Pairs("pairs"): 4,
    InContext("facts", context.plain): 2,
    InContext("facts_reverse", context.reverse): 2,
    InContext("facts_absent", context.absent): 4,
    InContext("interview", context.anything, follow_ups=10, fewest=4): 16,
    ThroughFriend("friend"): 10,
    Documents("documents"): 14,
    Recall("recall", context.plain): 2,
    Recall("recall_all", context.all_of_one): 3,
    Recall("recall_interview", context.anything, follow_ups=8): 5,
    Sum("sum"): 4,
    Sum("sum_of_three", most_operands=3): 3,
    Story("story"): 3,
    lookup.Lookup("weather", lookup.WEATHER): 2,
    lookup.Lookup("clock", lookup.CLOCK): 2,
    lookup.LookupWherePersonLives("lookup_person"): 4,
    lookup.FailingTool("failing_tool"): 2,
    listing.REPEATING: 3,
    listing.REVERSING: 2,
    listing.COUNTING: 2,
    listing.SORTING: 2,
    listing.Picking("pick"): 2,
    smalltalk.Fixed("small_talk"): 2,
    smalltalk.Introduction("introduction"): 2,
    smalltalk.Stranger("stranger"): 2,
}

ASYNCHRONOUS: dict[Task, float] = {
    Calling("single", calls.SINGLE): 4,
    Calling("parallel", calls.PARALLEL): 8,
    Calling("multi_step", calls.MULTI_STEP): 10,
    Calling("many_steps", calls.MANY_STEPS): 7,
    Calling("interrupts", calls.INTERRUPTED): 12,
    Calling("many_interrupts", calls.MANY_INTERRUPTS): 12,
}
SYNCHRONOUS: dict[Task, float] = {
    Calling("one_by_one", calls.PARALLEL, calls.ONE_BY_ONE): 2,
    Calling("one_by_one_steps", calls.MULTI_STEP, calls.ONE_BY_ONE): 2,
    Calling("all_at_once", calls.PARALLEL, calls.ALL_AT_ONCE): 2,
    Calling("all_at_once_steps", calls.MULTI_STEP, calls.ALL_AT_ONCE): 2,
}

MEDLEY: Task = Medley("medley", tuple(task for task in SIMPLE if not task.kind.endswith("interview")))
NAMELESS: Task = smalltalk.Nameless("nameless")
FACTS_LONG: Task = InContext("facts_long", context.anything, follow_ups=12, fewest=12, most=44)

KINDS: dict[str, Task] = {
    task.kind: task for task in (*SIMPLE, *ASYNCHRONOUS, *SYNCHRONOUS, MEDLEY, NAMELESS, FACTS_LONG)
}
"""Every kind by its name."""

MIXTURE: dict[str, float] = {
    **{task.kind: weight for task, weight in (SIMPLE | ASYNCHRONOUS | SYNCHRONOUS).items()},
    "medley": 5,
    "nameless": 0.5,
}
"""The kinds of a short training batch, with their weights."""

def mixture(calls: float) -> dict[str, float]:
    """The same, with calls so many times as often."""
    return {kind: weight * (calls if isinstance(KINDS[kind], Calling) else 1.0) for kind, weight in MIXTURE.items()}


LONG_MIXTURE: dict[str, float] = {"facts_long": 70, "medley": 15, "recall_interview": 15}
"""The kinds of a long training batch."""


def draw_dialogue(
    kind: str, source: random.Random, split: Split, reach: int = 8, pieces: Pieces = PIECES.findall
) -> Dialogue:
    """A new dialogue of this kind in a new world; without a system turn of its own it may be given one."""
    dialogue = KINDS[kind].dialogue(World(source, split, reach, pieces))
    if dialogue.turns[0].role is not Role.SYSTEM and source.random() < 0.15:
        dialogue = Dialogue(dialogue.kind, (system(source.choice(PREAMBLES)), *dialogue.turns))
    return dialogue


def draw_mixed(
    source: random.Random, split: Split, mixture: dict[str, float], reach: int = 8, pieces: Pieces = PIECES.findall
) -> Dialogue:
    """A dialogue whose kind is drawn by weight."""
    kind = source.choices(list(mixture), weights=list(mixture.values()))[0]
    return draw_dialogue(kind, source, split, reach, pieces)
