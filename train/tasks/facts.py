"""Facts: what can be said of a person or a thing, and how it is stated, asked and answered."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from train.world import World, with_article


@dataclass(frozen=True)
class Relation:
    """One thing to say of a subject. In the patterns, `{s}` is the subject and `{v}` the value.

    The first statement is also the answer; `reverse` asks for the subject when the value is known.
    """

    name: str
    statements: tuple[str, ...]
    questions: tuple[str, ...]
    reverse: str
    value: Callable[[World], str]


PERSON_RELATIONS: tuple[Relation, ...] = (
    Relation(
        "lives",
        ("{s} lives in {v}.", "{s} has a home in {v}."),
        (
            "Where does {s} live?",
            "In which city does {s} live?",
            "Where is the home of {s}?",
            "Tell me where {s} lives.",
        ),
        "Who lives in {v}?",
        World.city,
    ),
    Relation(
        "keeps",
        ("{s} keeps {v}.", "{s} owns {v}."),
        ("What does {s} keep?", "What does {s} own?", "Tell me what {s} keeps."),
        "Who keeps {v}?",
        lambda world: with_article(world.thing()),
    ),
    Relation(
        "works",
        ("{s} works as {v}.", "{s} is {v}."),
        ("What does {s} do?", "What is the job of {s}?", "What does {s} work as?", "Tell me the job of {s}."),
        "Who works as {v}?",
        World.job,
    ),
    Relation(
        "age",
        ("{s} is {v} years old.", "{s} has lived for {v} years."),
        ("How old is {s}?", "What is the age of {s}?", "Tell me how old {s} is."),
        "Who is {v} years old?",
        World.age,
    ),
    Relation(
        "likes",
        ("{s} likes {v}.", "{s} loves {v}."),
        ("What does {s} like?", "Which food does {s} like?", "What does {s} like to eat?"),
        "Who likes {v}?",
        World.food,
    ),
    Relation(
        "speaks",
        ("{s} speaks {v}.", "{s} talks in {v}."),
        ("What does {s} speak?", "Which language does {s} speak?", "Tell me what {s} speaks."),
        "Who speaks {v}?",
        World.language,
    ),
    Relation(
        "number",
        ("{s} has the number {v}.", "The number of {s} is {v}."),
        ("What is the number of {s}?", "Which number does {s} have?", "Tell me the number of {s}."),
        "Who has the number {v}?",
        lambda world: world.whole_number("number", 4),
    ),
)

FRIEND = Relation(
    "friend",
    ("{s} is a friend of {v}.",),
    ("Who is a friend of {v}?",),
    "Who is a friend of {v}?",
    World.name,
)

THING_RELATIONS: tuple[Relation, ...] = (
    Relation(
        "costs",
        ("The {s} costs {v} coins.", "The price of the {s} is {v} coins."),
        ("How much does the {s} cost?", "What is the price of the {s}?", "What does the {s} cost?"),
        "What costs {v} coins?",
        lambda world: world.whole_number("price", 3),
    ),
    Relation(
        "stands",
        ("The {s} is in the {v}.", "You find the {s} in the {v}."),
        ("Where is the {s}?", "In which room is the {s}?", "Tell me where the {s} is."),
        "What is in the {v}?",
        World.room,
    ),
)


@dataclass(frozen=True)
class Fact:
    """A relation with its subject and its value."""

    relation: Relation
    subject: str
    value: str

    def statement(self, world: World) -> str:
        """The fact as a context states it: mostly in its plain form."""
        patterns = self.relation.statements
        return self._fill(patterns[0] if world.chance(0.75) else world.choice(patterns))

    def question(self, world: World) -> str:
        return self._fill(world.choice(self.relation.questions))

    def reverse_question(self) -> str:
        return self._fill(self.relation.reverse)

    def answer(self) -> str:
        return self._fill(self.relation.statements[0])

    def _fill(self, pattern: str) -> str:
        return pattern.format(s=self.subject, v=self.value)


@dataclass(frozen=True)
class Subject:
    """Somebody or something that facts are about."""

    text: str
    relations: tuple[Relation, ...]

    @classmethod
    def new(cls, world: World) -> Subject:
        if world.chance(0.8):
            return cls(world.name(), PERSON_RELATIONS)
        return cls(world.thing(), THING_RELATIONS)


class Scene:
    """A few subjects and some facts about each; every value occurs once, so every question has one answer."""

    def __init__(self, world: World, fewest: int, most: int) -> None:
        self.world = world
        self.facts: list[Fact] = []
        self.subjects: list[Subject] = []
        wanted = world.random.randint(fewest, most)
        while len(self.facts) < wanted:
            subject = Subject.new(world)
            count = min(world.random.randint(1, 4), wanted - len(self.facts), len(subject.relations))
            relations = world.random.sample(subject.relations, count)
            self.facts += [Fact(relation, subject.text, relation.value(world)) for relation in relations]
            self.subjects.append(subject)
        if world.chance(0.3):
            world.random.shuffle(self.facts)

    def befriend(self, most: int) -> None:
        """Makes up to `most` people here friends, each of somebody else."""
        people = [subject.text for subject in self.subjects if subject.relations is PERSON_RELATIONS]
        for friend in self.world.random.sample(people, min(most, len(people))):
            place = self.world.random.randint(0, len(self.facts))
            self.facts.insert(place, Fact(FRIEND, friend, self.world.name()))

    def of_friends(self) -> list[tuple[Fact, Fact]]:
        """Who is a friend of whom, with each of the other facts about that friend."""
        friends = [fact for fact in self.facts if fact.relation is FRIEND]
        others = [fact for fact in self.facts if fact.relation is not FRIEND]
        return [(friend, fact) for friend in friends for fact in others if fact.subject == friend.subject]

    def text(self) -> str:
        """All facts, one short sentence each."""
        return " ".join(fact.statement(self.world) for fact in self.facts)

    def absent(self) -> Fact:
        """A fact that nothing here states: of a stranger, or a relation that was not told of a subject."""
        subject = self.world.choice(self.subjects) if self.world.chance(0.5) else Subject.new(self.world)
        told = {fact.relation.name for fact in self.facts if fact.subject == subject.text}
        untold = [relation for relation in subject.relations if relation.name not in told]
        if not untold:
            subject = Subject.new(self.world)
            untold = list(subject.relations)
        relation = self.world.choice(untold)
        return Fact(relation, subject.text, relation.value(self.world))
