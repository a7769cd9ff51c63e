"""Lookups: what a city's weather or time is, only a tool knows; sometimes the tool does not know either."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from train import words
from train.dialogue import Dialogue, Turn, assistant, call, result, user
from train.tasks.arithmetic import OPERATIONS, operand
from train.tasks.facts import PERSON_RELATIONS, Fact, Scene
from train.world import World


@dataclass(frozen=True)
class Service:
    """A tool that is asked about a city. In the patterns, `{v}` is the city and `{r}` what the tool returned."""

    tool: str
    questions: tuple[str, ...]
    about_person: str
    answer: str
    reply: Callable[[World], str]


def weather_reply(world: World) -> str:
    """`light rain, 12 degrees` and the like."""
    sky = world.draw("sky", lambda: f"{world.choice(words.DEGREES_OF)} {world.choice(words.CONDITIONS)}")
    degrees = f"{world.random.randint(-25, 45)} degrees"
    form = world.random.random()
    return f"{sky}, {degrees}" if form < 0.5 else f"{degrees}, {sky}" if form < 0.8 else degrees if form < 0.9 else sky


def clock_reply(world: World) -> str:
    """`14:05`."""
    return world.draw("time", lambda: f"{world.random.randint(0, 23):02d}:{world.random.randint(0, 59):02d}")


WEATHER = Service(
    "weather",
    (
        "What is the weather in {v}?",
        "How is the weather in {v}?",
        "What is the weather like in {v}?",
        "Tell me the weather in {v}.",
        "Is it warm in {v}?",
        "Does it rain in {v}?",
    ),
    "What is the weather where {s} lives?",
    "The weather in {v}: {r}.",
    weather_reply,
)
CLOCK = Service(
    "clock",
    ("What time is it in {v}?", "Tell me the time in {v}.", "How late is it in {v}?", "What is the time in {v}?"),
    "What time is it where {s} lives?",
    "It is {r} in {v}.",
    clock_reply,
)


def consult(service: Service, city: str, world: World) -> tuple[Turn, Turn, Turn]:
    """The call, the tool's result and the answer from it."""
    reply = service.reply(world)
    return call(service.tool, city), result(reply), assistant(service.answer.format(v=city, r=reply))


@dataclass(frozen=True)
class Lookup:
    """A question about a city."""

    kind: str
    service: Service

    def dialogue(self, world: World) -> Dialogue:
        city = world.city()
        question = world.question(world.choice(self.service.questions).format(v=city))
        return Dialogue(self.kind, (user(question), *consult(self.service, city, world)))


@dataclass(frozen=True)
class LookupWherePersonLives:
    """A question about a person's city: it is read from the context first, then looked up."""

    kind: str

    def dialogue(self, world: World) -> Dialogue:
        scene = Scene(world, 1, max(1, world.reach - 1))
        fact = Fact(PERSON_RELATIONS[0], world.name(), world.city())
        scene.facts.insert(world.random.randint(0, len(scene.facts)), fact)
        service = world.choice([WEATHER, CLOCK])
        question = world.question(service.about_person.format(s=fact.subject))
        return Dialogue(self.kind, (user(f"{scene.text()} {question}"), *consult(service, fact.value, world)))


ERRORS = ("unknown city", "no connection", "too many requests", "out of service", "not allowed", "timed out")


@dataclass(frozen=True)
class FailingTool:
    """The tool returns `error: REASON`; the answer says so and gives the reason."""

    kind: str

    def dialogue(self, world: World) -> Dialogue:
        reason = world.choice(ERRORS) if world.chance(0.6) else " ".join(world.word_list(1, 3))
        if world.chance(0.3):
            expression = world.draw("expression", lambda: f"{operand(world)}{world.choice('+-*/')}{operand(world)}")
            said = expression
            for symbol, word in OPERATIONS.items():
                said = said.replace(symbol, f" {word} ")
            turns = [user(world.question(f"What is {said}?")), call("calculator", expression)]
        else:
            service, city = world.choice([WEATHER, CLOCK]), world.city()
            turns = [user(world.choice(service.questions).format(v=city)), call(service.tool, city)]
        return Dialogue(self.kind, (*turns, result(f"error: {reason}"), assistant(f"The tool failed: {reason}.")))
