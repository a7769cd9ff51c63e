"""A job: what a user asks for, what the functions will return, and how the user interrupts."""

from __future__ import annotations

from dataclasses import dataclass

from cadenza.inferlets.async_calls.cml import Code
from train.executor import SLOTS, random_seconds
from train.functions import Chain, Function, new_function, new_request, value_of
from train.world import World

ERRORS = ("no connection", "not found", "not allowed", "timed out", "out of service", "too busy")
OPENINGS = ("Please", "Please", "Now", "First")
SHORTEST_TOKEN_SECONDS, LONGEST_TOKEN_SECONDS = 0.005, 0.030


@dataclass(frozen=True)
class Reply:
    """What a function returns, and after how many seconds."""

    value: str
    seconds: float

    @property
    def failed(self) -> bool:
        return self.value.startswith("error: ")


@dataclass(frozen=True)
class UserInterrupt:
    """The user says something while the model is at work: asks for another chain, or takes one back (by its noun)."""

    seconds: float
    text: str
    chain: Chain | None = None
    left_out: str = ""


@dataclass(frozen=True)
class Job:
    """`replies` by the noun of the called function: no two functions of a job share one."""

    functions: tuple[Function, ...]
    chains: tuple[Chain, ...]
    asked: str
    replies: dict[str, Reply]
    interrupts: tuple[UserInterrupt, ...]
    slots: int
    token_seconds: float

    def declared(self, manner: str) -> str:
        """The system turn: how the functions behave, and their names."""
        return f"{manner}: {', '.join(function.declared for function in self.functions)}."

    def reply_to(self, code: str) -> Reply | None:
        """What this call returns; None if it is to no function of the job. Raises `Malformed`."""
        name = Code.parse(code).name
        return next((self.replies.get(called.noun) for called in self.functions if called.name == name), None)


@dataclass(frozen=True)
class Plan:
    """What jobs of one kind are like: numbers of chains and of steps a chain, and of the user's interrupts."""

    chains: tuple[int, int]
    steps: tuple[int, int] = (1, 1)
    interrupts: tuple[int, int] = (0, 0)
    most_steps: int = 6
    failures: float = 0.03

    def job(self, world: World) -> Job:
        """A new job of this plan, with functions among others that nobody asks for."""
        nouns: set[str] = set()
        lengths = self._lengths(world)
        chains = [new_chain(world, nouns, length) for length in lengths]
        later = [new_chain(world, nouns, 1) for _ in range(world.random.randint(*self.interrupts))]
        used = [request.function for chain in (*chains, *later) for request in chain.requests]
        others = [new_function(world, nouns) for _ in range(world.random.randint(0, 2))]
        functions = [*used, *others]
        world.random.shuffle(functions)
        replies = {function.noun: self._reply(world) for function in used}
        asked = " ".join(sentence(chain, world, first=place == 0) for place, chain in enumerate(chains))
        interrupts = [self._interrupt(world, chain, chains) for chain in later]
        times = sorted(interrupts, key=lambda interrupt: interrupt.seconds)
        pace = world.random.uniform(SHORTEST_TOKEN_SECONDS, LONGEST_TOKEN_SECONDS)
        return Job(tuple(functions), tuple(chains), asked, replies, tuple(times), world.choice(SLOTS), pace)

    def _lengths(self, world: World) -> list[int]:
        """Steps of each chain; half as many in all as the world has facts, if so few are possible."""
        longest = min(2, self.steps[1])
        least = (self.chains[0] - 1) * self.steps[0] + longest
        most = max(least, min(self.most_steps, world.reach // 2))
        while True:
            lengths = [world.random.randint(*self.steps) for _ in range(world.random.randint(*self.chains))]
            if sum(lengths) <= most and max(lengths) >= longest:
                return lengths

    def _reply(self, world: World) -> Reply:
        failed = world.chance(self.failures)
        value = f"error: {world.choice(ERRORS)}" if failed else value_of(world)
        return Reply(value, random_seconds(world.random))

    def _interrupt(self, world: World, chain: Chain, asked: list[Chain]) -> UserInterrupt:
        """Asks for the chain, or takes back one that was asked for."""
        seconds = world.random.uniform(0.05, 1.5)
        taken = world.choice(asked)
        if len(taken.requests) == 1 and world.chance(0.25):
            noun = taken.requests[-1].function.noun
            return UserInterrupt(seconds, f"Leave out the {noun}.", left_out=noun)
        return UserInterrupt(seconds, sentence(chain, world, first=False), chain)


def new_chain(world: World, nouns: set[str], length: int) -> Chain:
    steps = [new_request(world, new_function(world, nouns), after=place > 0) for place in range(length)]
    return Chain(tuple(steps))


def sentence(chain: Chain, world: World, first: bool) -> str:
    """A chain as the user asks for it."""
    return f"{world.choice(OPENINGS) if first else 'Also'} {chain.asked(world)}."
