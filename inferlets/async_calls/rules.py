"""CML as text, for the kernel's grammar object: what a model without reserved tokens may say, whatever its tokens are.

    speech := text ((call | trap) text)*        text holds no delimiter; a turn may end in it, and nowhere else
    code := name ( literals, name=literals )    as `Code.parse` reads it; no literal holds a delimiter

It is one regular expression (a single word of the grammar), so tokens may cut it anywhere. [INTR] is not in it: the
runtime writes interrupts into the context, behind a text that is no delimiter's beginning. The grammar is not moved by
them, and goes on where it stood: in a text. Nothing is counted, and little is complemented or intersected: masks would
take seconds.
"""

from __future__ import annotations

import keyword
import re

from .cml import RESERVED

ESCAPED = r"""\\["'\\nrt]"""


def free_of_delimiters(also: str = "", or_else: str = "") -> str:
    """A regular expression of texts without a delimiter, and without the characters `also`; but `or_else` may come
    where a character may. A chunk is a bracket and as much of a delimiter as follows: another comes next, or what does
    not go on with any delimiter, or the end."""
    begun = sorted({token[1:end] for token in RESERVED for end in range(1, len(token))})
    follows = {prefix: "".join(sorted({token[len(prefix) + 1] for token in RESERVED if token[1:].startswith(prefix)}))
               for prefix in begun}
    other = f"|{or_else}" if or_else else ""
    broken = "|".join(rf"{prefix}([^\[{re.escape(follows[prefix])}{also}]{other})" for prefix in begun)
    chunks = rf"(\[({'|'.join(begun)}))*"
    return rf"([^\[{also}]{other}|{chunks}\[({broken}))*{chunks}"


QUOTED = "|".join(quote + free_of_delimiters(rf"{quote}\\\x00-\x1f", ESCAPED) + quote for quote in "\"'")

RULES = rf"""
start: SPEECH
SPEECH: TEXT ((CALL | "[TRAP][END]") TEXT)*
TEXT: /{free_of_delimiters()}/
CALL: "[CALL]" (/[^\[\]]+/ "[HEAD]")? CODE "[END]"
CODE: " "? NAME "(" (VALUE (COMMA VALUE)* (COMMA NAMED)* | NAMED (COMMA NAMED)*)? ")" " "?
NAMED: NAME "=" VALUE
VALUE: FLAT | "[" (FLAT (COMMA FLAT)*)? "]" | "{{" (PAIR (COMMA PAIR)*)? "}}"
PAIR: FLAT ":" " "? FLAT
FLAT: /{QUOTED}/ | /-?(0|[1-9][0-9]*)(\.[0-9]+)?/ | "True" | "False" | "None"
NAME: /[A-Za-z_][A-Za-z0-9_]*/ & ~/{"|".join(keyword.kwlist)}/
COMMA: "," " "?
"""
