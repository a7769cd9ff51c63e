"""Random JSON schemas, as programs write them, and those that are meant to do harm."""

from __future__ import annotations

import json
import random
from typing import Any

Schema = dict[str, Any]

WORDS = ("name", "age", "tags", "size", "from", "to", "kind", "ok", "größe", "a b", "x-y", "note")
PATTERNS = ("^[a-z]{2,5}$", "^(foo|bar)+$", "^[A-Z][0-9]{3}$", "^.{0,4}$", "^\\d{4}-\\d{2}$")
FORMATS = ("date", "time", "uuid", "ipv4", "date-time")


def random_schema(chosen: random.Random, depth: int = 3) -> Schema:
    """Every text of it ends: what repeats is bounded."""
    kinds = [_string, _integer, _number, _enumeration, _constant, _boolean]
    if depth:
        kinds += [_object, _object, _object, _array, _array, _any_of, _reference]
    return chosen.choice(kinds)(chosen, depth - 1)


def _string(chosen: random.Random, depth: int) -> Schema:
    form = chosen.randrange(3)
    if form == 0:
        return {"type": "string", "pattern": chosen.choice(PATTERNS)}
    if form == 1:
        return {"type": "string", "format": chosen.choice(FORMATS)}
    least = chosen.randint(0, 3)
    return {"type": "string", "minLength": least, "maxLength": least + chosen.randint(0, 12)}


def _integer(chosen: random.Random, depth: int) -> Schema:
    least = chosen.randint(-1000, 1000)
    bounds: Schema = {"minimum": least, "maximum": least + chosen.randint(0, 100_000)}
    if chosen.random() < 0.3:
        bounds = {"exclusiveMinimum": least, "exclusiveMaximum": least + chosen.randint(2, 500)}
    if chosen.random() < 0.2:
        bounds = {"minimum": 0, "maximum": 1000, "multipleOf": chosen.choice([2, 5, 7])}
    return {"type": "integer", **bounds}


def _number(chosen: random.Random, depth: int) -> Schema:
    return {"type": "number", "minimum": 0, "maximum": chosen.choice([1, 9.5, 100])}


def _enumeration(chosen: random.Random, depth: int) -> Schema:
    others: list[Any] = [None, True, 0, -1.5, [1, "a"]]
    return {"enum": [*chosen.sample(WORDS, chosen.randint(1, 5)), *chosen.sample(others, 2)]}


def _constant(chosen: random.Random, depth: int) -> Schema:
    return {"const": chosen.choice(["yes", 7, None, {"a": [1, 2]}, "\"quoted\"\n"])}


def _boolean(chosen: random.Random, depth: int) -> Schema:
    return {"type": chosen.choice(["boolean", "null", ["boolean", "null"]])}


def _object(chosen: random.Random, depth: int) -> Schema:
    names = chosen.sample(WORDS, chosen.randint(0, 5))
    schema: Schema = {
        "type": "object", "properties": {name: random_schema(chosen, depth) for name in names},
        "required": [name for name in names if chosen.random() < 0.7], "additionalProperties": False,
    }
    if chosen.random() < 0.2:
        schema["title"], schema["description"] = "Something", "Which a program wants."
    return schema


def _array(chosen: random.Random, depth: int) -> Schema:
    least = chosen.randint(0, 2)
    if chosen.random() < 0.2:
        items = [random_schema(chosen, depth) for _ in range(chosen.randint(1, 3))]
        return {"type": "array", "prefixItems": items, "items": False, "minItems": len(items)}
    return {"type": "array", "items": random_schema(chosen, depth), "minItems": least,
            "maxItems": least + chosen.randint(0, 3)}


def _any_of(chosen: random.Random, depth: int) -> Schema:
    return {"anyOf": [random_schema(chosen, depth) for _ in range(chosen.randint(1, 3))]}


def _reference(chosen: random.Random, depth: int) -> Schema:
    """One that it names; or a list, which names itself."""
    if chosen.random() < 0.5:
        return {"type": "array", "items": {"$ref": "#/$defs/thing"}, "maxItems": 2,
                "$defs": {"thing": _leaf(chosen)}} if depth == 2 else _leaf(chosen)
    return _leaf(chosen)


def _leaf(chosen: random.Random) -> Schema:
    return random_schema(chosen, 0)


def recursive_schema(chosen: random.Random) -> Schema:
    """A tree whose nodes have at most two children."""
    node = {"type": "object", "properties": {"value": _leaf(chosen), "children": {
        "type": "array", "items": {"$ref": "#/$defs/node"}, "maxItems": chosen.choice([0, 1])}},
        "required": ["value"], "additionalProperties": False}
    return {"$ref": "#/$defs/node", "$defs": {"node": node}}


def schemas(count: int, seed: int = 0) -> list[Schema]:
    chosen = random.Random(seed)
    return [recursive_schema(chosen) if chosen.random() < 0.1 else random_schema(chosen) for _ in range(count)]


def _doubling(levels: int, word: str) -> Schema:
    """Each level names the next one twice."""
    definitions: Schema = {f"d{level}": {word: [{"$ref": f"#/$defs/d{level + 1}"}] * 2} for level in range(levels)}
    return {"$ref": "#/$defs/d0", "$defs": {**definitions, f"d{levels}": {"type": "null"}}}


# kind of source, text. Each takes long, much memory, or is meant to.
HOSTILE: dict[str, tuple[str, str]] = {
    "a star of equal choices": ("regex", "(a|a)*b"),
    "stars in stars": ("regex", "((a*)*)*" * 200 + "b"),
    "exponential": ("regex", "(a|b)*a(a|b){2000}"),
    "exponential, negated": ("lark", 'start: A\nA: /[a-z]{1,3000}/ & ~/(.*a.*b.*){30}/ & /(.*c.*d.*){30}/'),
    "a giant repeat": ("regex", "(a{0,30000}b{0,30000}){0,30000}"),
    "deep brackets": ("regex", "(" * 30_000 + "a" + ")" * 30_000),
    "a deep schema": ("json-schema", '{"items":' * 6_000 + "{}" + "}" * 6_000),
    "a huge enumeration": ("json-schema", json.dumps({"enum": [f"{n} {n * 7919 % 10007}" for n in range(5_000)]})),
    "many properties": ("json-schema", json.dumps({"properties": {f"p{n}": {"type": "string"} for n in range(2_500)}})),
    "itself and nothing else": ("json-schema", '{"$ref": "#"}'),
    "doubling, any": ("json-schema", json.dumps(_doubling(40, "anyOf"))),
    "doubling, all": ("json-schema", json.dumps(_doubling(30, "allOf"))),
    "crossed alternatives": ("json-schema", json.dumps(
        {"allOf": [{"anyOf": [{"minLength": n}, {"maxLength": 9 + n}]} for n in range(24)]})),
    "a large multiple": ("json-schema", '{"type": "integer", "multipleOf": 982451653}'),
    "long and patterned": ("json-schema", '{"type": "string", "minLength": 100000, "pattern": "^(a|b)*a(a|b){30}$"}'),
    "ambiguous rules": ("lark", 'start: s\ns: s s | s s s | "a" |'),
    "many rules": ("lark", "start: " + " | ".join(f"r{n}" for n in range(1_500)) + "\n" + "\n".join(
        f'r{n}: "x{n}" start' for n in range(1_500))),
    "deep rules": ("lark", "start: " + "(" * 30_000 + '"a"' + ")" * 30_000),
}
