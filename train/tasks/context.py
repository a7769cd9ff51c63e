"""Questions about facts that the chat itself has stated: told before or with the question, or not told at all."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from train.dialogue import Dialogue, Turn, assistant, system, user
from train.tasks.facts import FRIEND, PERSON_RELATIONS, Fact, Scene
from train.world import World

UNKNOWN = "I do not know."
NOTED = "I will remember that."

Pair = tuple[str, str]
"""A question and its answer."""


def plain(scene: Scene) -> Pair:
    """Of a subject: what was told."""
    fact = scene.world.choice(scene.facts)
    return fact.question(scene.world), fact.answer()


def reverse(scene: Scene) -> Pair:
    """Of a value: whose it is."""
    fact = scene.world.choice(scene.facts)
    return fact.reverse_question(), fact.answer()


def absent(scene: Scene) -> Pair:
    """Of something that was not told."""
    fact = scene.absent()
    reversed_question = scene.world.chance(0.3)
    return fact.reverse_question() if reversed_question else fact.question(scene.world), UNKNOWN


def through_friend(scene: Scene) -> Pair:
    """Of the friend of somebody: what was told of that friend. There must be one."""
    friend, fact = scene.world.choice(scene.of_friends())
    asked = Fact(fact.relation, f"the friend of {friend.value}", fact.value)
    return asked.question(scene.world), fact.answer()


def anything(scene: Scene) -> Pair:
    """One of the above."""
    if scene.of_friends() and scene.world.chance(0.3):
        return through_friend(scene)
    form = scene.world.random.random()
    return plain(scene) if form < 0.45 else reverse(scene) if form < 0.75 else absent(scene)


def all_of_one(scene: Scene) -> Pair:
    """Everything that was told of one subject, in the order in which it was told."""
    subject = scene.world.choice(scene.facts).subject
    known = "the " + subject if subject[0].islower() else subject
    told = " ".join(fact.answer() for fact in scene.facts if fact.subject == subject)
    return f"What did I tell you about {known}?", told


@dataclass(frozen=True)
class InContext:
    """Facts and a question of one form in the first turn, and up to `follow_ups` questions of any form after it."""

    kind: str
    ask: Callable[[Scene], Pair]
    follow_ups: int = 0
    fewest: int = 1
    most: int | None = None

    def dialogue(self, world: World) -> Dialogue:
        scene = Scene(world, self.fewest, max(self.fewest, self.most or world.reach))
        if self.follow_ups and world.chance(0.5):
            scene.befriend(2)
        question, answer = self.ask(scene)
        question = world.question(question)
        if world.chance(0.4):
            turns = [system(scene.text()), user(question)]
        elif world.chance(0.15):
            turns = [user(f"{question} {scene.text()}")]
        else:
            turns = [user(f"{scene.text()} {question}")]
        turns.append(assistant(answer))
        return Dialogue(self.kind, (*turns, *more_questions(scene, self.follow_ups)))


@dataclass(frozen=True)
class Recall:
    """Facts in one turn, the question about them in the next."""

    kind: str
    ask: Callable[[Scene], Pair]
    follow_ups: int = 0

    def dialogue(self, world: World) -> Dialogue:
        scene = Scene(world, 1, world.reach)
        told = scene.text() + world.choice(["", "", " Remember this.", " Keep this in mind."])
        question, answer = self.ask(scene)
        turns = [user(told), assistant(NOTED), user(world.question(question)), assistant(answer)]
        return Dialogue(self.kind, (*turns, *more_questions(scene, self.follow_ups)))


@dataclass(frozen=True)
class ThroughFriend:
    """Two steps of reading: who is the friend, and what was told of that friend."""

    kind: str

    def dialogue(self, world: World) -> Dialogue:
        scene = Scene(world, 2, world.reach)
        subject, friend = world.name(), world.name()
        relation = world.choice(PERSON_RELATIONS)
        fact = Fact(relation, friend, relation.value(world))
        scene.facts += [fact, Fact(FRIEND, friend, subject)]
        world.random.shuffle(scene.facts)
        question = Fact(relation, f"the friend of {subject}", fact.value).question(world)
        turns = [user(f"{scene.text()} {world.question(question)}"), assistant(fact.answer())]
        return Dialogue(self.kind, tuple(turns))


def more_questions(scene: Scene, most: int) -> list[Turn]:
    """Up to `most` further questions about the scene, each with its answer; what was answered is not asked again,
    for that answer could be read off the earlier one."""
    turns: list[Turn] = []
    given: set[str] = set()
    for _ in range(scene.world.random.randint(most // 2, most)):
        question, answer = anything(scene)
        if answer not in given:
            turns += [user(scene.world.question(question)), assistant(answer)]
            given |= {answer} - {UNKNOWN}
    return turns
