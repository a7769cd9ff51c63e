"""Documents as prompt modules give them, and one question: about one document, about two, or about none."""

from __future__ import annotations

from dataclasses import dataclass

from train.dialogue import Dialogue, assistant, system, user
from train.tasks.context import UNKNOWN
from train.tasks.facts import FRIEND, PERSON_RELATIONS, Fact, Scene
from train.world import World

FACTS_EACH = 2


@dataclass(frozen=True)
class Documents:
    """Two to four documents of two facts each, in the system turn or before the question in the user's."""

    kind: str

    def dialogue(self, world: World) -> Dialogue:
        count = world.random.randint(2, 4)
        form = world.random.random()
        scene = Scene(world, count * FACTS_EACH, count * FACTS_EACH)
        asked, answer = friend_of(scene) if form < 0.25 else one_of(scene) if form < 0.75 else none_of(scene)
        facts = [fact.statement(world) for fact in scene.facts]
        documents = [" ".join(facts[number::count]) for number in range(count)]
        text, question = " ".join(documents), world.question(asked)
        turns = [system(text), user(question)] if world.chance(0.5) else [user(f"{text} {question}")]
        return Dialogue(self.kind, (*turns, assistant(answer)))


def one_of(scene: Scene) -> tuple[str, str]:
    fact = scene.world.choice(scene.facts)
    return fact.question(scene.world), fact.answer()


def none_of(scene: Scene) -> tuple[str, str]:
    return scene.absent().question(scene.world), UNKNOWN


def friend_of(scene: Scene) -> tuple[str, str]:
    """Takes the place of two facts: who the friend is, and what is told of that friend."""
    world = scene.world
    subject, friend, relation = world.name(), world.name(), world.choice(PERSON_RELATIONS)
    fact = Fact(relation, friend, relation.value(world))
    scene.facts[-2:] = [fact, Fact(FRIEND, friend, subject)]
    world.random.shuffle(scene.facts)
    return Fact(relation, f"the friend of {subject}", fact.value).question(world), fact.answer()
