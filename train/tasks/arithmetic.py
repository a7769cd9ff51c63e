"""Sums: the model can't calculate, so it writes the expression, calls the calculator and states what it returned."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

from train import words
from train.dialogue import Dialogue, assistant, call, result, user
from train.world import World

OPERATIONS = {"+": "plus", "-": "minus", "*": "times", "/": "divided by"}

WORDINGS = (
    "What is {a} {word} {b}?",
    "How much is {a} {word} {b}?",
    "Calculate {a} {word} {b}.",
    "Work out {a} {word} {b}.",
    "Tell me {a} {word} {b}.",
    "What is {a}{op}{b}?",
    "What is {a} {op} {b}?",
    "{a} {op} {b}",
    "{a}{op}{b} = ?",
)

OWN_WORDINGS = {
    "+": ("Add {a} and {b}.", "What is the sum of {a} and {b}?"),
    "-": ("Subtract {b} from {a}.", "What is the difference between {a} and {b}?", "Take {b} away from {a}."),
    "*": ("Multiply {a} by {b}.", "What is the product of {a} and {b}?"),
    "/": ("Divide {a} by {b}.", "Share {a} among {b}."),
}

INVENTED_RESULTS = 0.3
"""The part of the tool's results that are any number at all: what the tool says is stated, not what seems likely."""


def evaluate(expression: str) -> str:
    """The value of a flat expression of whole numbers with + - * /, at most two decimals; a calculator's answer."""
    total, product, sign, operation = Fraction(0), Fraction(1), 1, "*"
    spaced = expression
    for symbol in OPERATIONS:
        spaced = spaced.replace(symbol, f" {symbol} ")
    for part in spaced.split():
        if part in "+-":
            total, product, operation = total + sign * product, Fraction(1), "*"
            sign = 1 if part == "+" else -1
        elif part in "*/":
            operation = part
        elif operation == "/":
            product /= int(part)
        else:
            product *= int(part)
    value = total + sign * product
    return str(value) if value.denominator == 1 else f"{float(value):.2f}"


def tool_result(world: World, expression: str) -> str:
    """The calculator's answer, or now and then any number."""
    if not world.chance(INVENTED_RESULTS):
        return evaluate(expression)
    number = world.random.randint(0, 10 ** world.random.randint(1, 6) - 1)
    sign = "-" if world.chance(0.1) else ""
    return f"{sign}{number}.{world.random.randint(1, 99)}" if world.chance(0.1) else f"{sign}{number}"


def operand(world: World) -> int:
    return world.random.randint(1, 10 ** world.random.randint(1, 4) - 1)


@dataclass(frozen=True)
class Sum:
    """Two numbers, or three, and what is to be done with them."""

    kind: str
    most_operands: int = 2

    def dialogue(self, world: World) -> Dialogue:
        count = world.random.randint(2, self.most_operands)
        expression = world.draw("expression", lambda: self._expression(world, count))
        question, said = self._worded(world, expression)
        value = tool_result(world, expression)
        turns = (user(world.question(question)), call("calculator", expression), result(value))
        return Dialogue(self.kind, (*turns, assistant(f"{said} is {value}.")))

    def _expression(self, world: World, count: int) -> str:
        if count == 2 and world.chance(0.15):
            divisor = world.random.randint(1, 99)
            return f"{divisor * world.random.randint(1, 99)}/{divisor}"
        parts = [str(operand(world))]
        for _ in range(count - 1):
            parts += [world.choice(list(OPERATIONS)), str(operand(world))]
        return "".join(parts)

    def _worded(self, world: World, expression: str) -> tuple[str, str]:
        """The question, and the words with which the answer begins."""
        said = expression
        for symbol, word in OPERATIONS.items():
            said = said.replace(symbol, f" {word} ")
        symbols = [symbol for symbol in expression if symbol in OPERATIONS]
        if len(symbols) > 1:
            pattern = world.choice(["What is {x}?", "How much is {x}?", "Calculate {x}.", "Work out {x}."])
            return pattern.format(x=expression if world.chance(0.3) else said), said
        first, second = expression.split(symbols[0])
        patterns = OWN_WORDINGS[symbols[0]] if world.chance(0.35) else WORDINGS
        word = OPERATIONS[symbols[0]]
        return world.choice(patterns).format(a=first, b=second, op=symbols[0], word=word), said


STORIES: tuple[tuple[str, str, str], ...] = (
    ("{s} has {a} {g} and finds {b} more. How many {g} does {s} have now?", "{a}+{b}", "{s} has {r} {g} now."),
    ("{s} had {a} {g} and lost {b}. How many {g} does {s} have now?", "{a}-{b}", "{s} has {r} {g} now."),
    ("{s} has {a} {g} and {t} has {b}. How many {g} do they have together?", "{a}+{b}", "Together they have {r} {g}."),
    ("There are {a} boxes with {b} {g} in each. How many {g} are there?", "{a}*{b}", "There are {r} {g}."),
    ("{s} shares {a} {g} among {b} friends. How many {g} does each get?", "{a}/{b}", "Each friend gets {r} {g}."),
    (
        "{s} has {a} {g}, buys {b} more and gives away {c}. How many {g} does {s} have now?",
        "{a}+{b}-{c}",
        "{s} has {r} {g} now.",
    ),
    (
        "{s} earns {a} coins a day for {b} days and spends {c} coins. How many coins are left?",
        "{a}*{b}-{c}",
        "{r} coins are left.",
    ),
    (
        "There are {a} boxes with {b} {g} in each, and {c} {g} are lost. How many are left?",
        "{a}*{b}-{c}",
        "{r} {g} are left.",
    ),
)
"""The story, its expression, the answer."""


@dataclass(frozen=True)
class Story:
    """A small word problem of one or two steps."""

    kind: str

    def dialogue(self, world: World) -> Dialogue:
        text, pattern, answer = world.choice(STORIES)
        numbers: dict[str, int] = {}

        def make() -> str:
            numbers.update((letter, world.random.randint(2, 10 ** world.random.randint(1, 3))) for letter in "abc")
            return pattern.format(**numbers)

        expression = world.draw("expression", make)
        value = tool_result(world, expression)
        names = {"s": world.name(), "t": world.name(), "g": world.choice(words.GOODS), "r": value}
        turns = (user(text.format(**numbers, **names)), call("calculator", expression), result(value))
        return Dialogue(self.kind, (*turns, assistant(answer.format(**names))))
