"""A calculator for models: the value of an arithmetic expression, and nothing else that Python could be made to do."""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable
from fractions import Fraction

MOST_CHARACTERS = 200
MOST_DIGITS = 200       # of a power, so that none takes a minute

OPERATIONS: dict[type[ast.operator], Callable[[Fraction, Fraction], Fraction]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: lambda left, right: Fraction(left // right),
    ast.Mod: operator.mod,
}


def evaluate(expression: str) -> str:
    """The value of `expression`, with + - * / // % ** and brackets, exact; at most two decimals are written.

    Raises ValueError for everything else, with what is wrong.
    """
    if len(expression) > MOST_CHARACTERS:
        raise ValueError(f"an expression of {len(expression)} characters; at most {MOST_CHARACTERS} are calculated")
    try:
        tree = ast.parse(expression.strip(), mode="eval")
        return written(value_of(tree.body))
    except SyntaxError:
        raise ValueError(f"not an arithmetic expression: {expression}") from None
    except ZeroDivisionError:
        raise ValueError("division by zero") from None


def value_of(node: ast.expr) -> Fraction:
    match node:
        case ast.Constant(value=int() | float() as number) if not isinstance(number, bool):
            return Fraction(str(number))
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return -value_of(operand)
        case ast.UnaryOp(op=ast.UAdd(), operand=operand):
            return value_of(operand)
        case ast.BinOp(left=left, op=ast.Pow(), right=right):
            return power(value_of(left), value_of(right))
        case ast.BinOp(left=left, op=operation, right=right) if type(operation) in OPERATIONS:
            return OPERATIONS[type(operation)](value_of(left), value_of(right))
    raise ValueError(f"not an arithmetic expression: {ast.unparse(node)}")


def power(base: Fraction, exponent: Fraction) -> Fraction:
    if exponent.denominator != 1:
        raise ValueError(f"only whole exponents are calculated, not {exponent}")
    digits = len(str(max(abs(base.numerator), base.denominator))) * abs(exponent.numerator)
    if digits > MOST_DIGITS:
        raise ValueError(f"a power of about {digits} digits; at most {MOST_DIGITS} are calculated")
    return base ** exponent.numerator


def written(value: Fraction) -> str:
    if value.denominator == 1:
        return str(value)
    return f"{float(value):.2f}"
