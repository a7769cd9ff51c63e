"""Small talk: greetings, who the model is, and what it must admit not to know."""

from __future__ import annotations

from dataclasses import dataclass

from train.dialogue import Dialogue, assistant, user
from train.tasks.context import UNKNOWN
from train.tasks.facts import Subject
from train.world import World

IDENTITY = "I am Cadenza's small model."
ABILITIES = "I answer questions about what you tell me, and I call tools."

FIXED: tuple[tuple[tuple[str, ...], str], ...] = (
    (("Hello.", "Hi.", "Hello there.", "Good morning.", "Good evening.", "Hey."), "Hello. How can I help?"),
    (("Who are you?", "What are you?", "What is your name?", "Tell me who you are.", "Name yourself."), IDENTITY),
    (("What can you do?", "How can you help me?", "Help."), ABILITIES),
    (("Thank you.", "Thanks.", "Thank you very much."), "You are welcome."),
    (("Goodbye.", "Bye.", "See you later."), "Goodbye."),
)

OPENINGS = ("Hello, I am {s}.", "Hi, I am {s}.", "My name is {s}.", "I am {s}.", "Hello, my name is {s}.")
WHO_AM_I = ("What is my name?", "Who am I?", "Tell me my name.")


@dataclass(frozen=True)
class Fixed:
    """A question with one answer, whatever came before."""

    kind: str

    def dialogue(self, world: World) -> Dialogue:
        asked, answer = world.choice(FIXED)
        text = world.choice(asked)
        if world.chance(0.1):
            text = text.rstrip(".?")
        return Dialogue(self.kind, (user(text), assistant(answer)))


@dataclass(frozen=True)
class Introduction:
    """Somebody gives a name and is greeted by it; asked later, the model still knows it."""

    kind: str

    def dialogue(self, world: World) -> Dialogue:
        name = world.name()
        turns = [user(world.choice(OPENINGS).format(s=name)), assistant(f"Hello, {name}. How can I help?")]
        if world.chance(0.6):
            turns += [user(world.choice(WHO_AM_I)), assistant(f"Your name is {name}.")]
        return Dialogue(self.kind, tuple(turns))


@dataclass(frozen=True)
class Stranger:
    """A question about somebody or something of which nothing was said."""

    kind: str

    def dialogue(self, world: World) -> Dialogue:
        if world.chance(0.7):
            subject = Subject.new(world)
            text = world.choice(world.choice(subject.relations).questions).format(s=subject.text)
        else:
            pattern = world.choice(["Who is {s}?", "What is a {t}?", "Why does {s} have a {t}?", "When was {s} born?"])
            text = pattern.format(s=world.name(), t=world.thing())
        return Dialogue(self.kind, (user(world.question(text)), assistant(UNKNOWN)))


@dataclass(frozen=True)
class Nameless:
    """Somebody who gave no name asks for it."""

    kind: str

    def dialogue(self, world: World) -> Dialogue:
        return Dialogue(self.kind, (user(world.choice(WHO_AM_I)), assistant(UNKNOWN)))
