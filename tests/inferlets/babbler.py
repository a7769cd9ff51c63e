"""A model that babbles CML, and a whole kernel around it in virtual time: programs are real, in Wasm."""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import tokenizers
from tokenizers import decoders, models, pre_tokenizers

from benchmarks.calls.speaker import Speaker
from cadenza.inferlets.async_calls.cml import CALL, END, HEAD, INTR, RESERVED, TRAP, Malformed, Parser, State
from cadenza.kernel.device.batch import Int32
from cadenza.kernel.device.local_link import LocalLink
from cadenza.kernel.kernel import Kernel
from cadenza.kernel.language import Language
from cadenza.kernel.model.chat import ChatTemplate
from cadenza.kernel.model.facts import ModelFacts
from cadenza.kernel.model.tokenizer import Tokenizer
from cadenza.server.boot import Assembly, assemble

ENDS = ("<|begin|>", "<|end|>")
TEMPLATE = "{%- for message in messages -%}{{- message['content'] -}}{%- endfor -%}"
INTERRUPT = re.compile(re.escape(INTR) + ".*?" + re.escape(END), re.DOTALL)
STEP_MS = 8.0
Script = Callable[[str], str]
"""What follows, after the text behind the question mark: its first token is said."""
LIKELY = {
    State.OUTSIDE: [CALL] * 14 + [*"aaabbb"] + [TRAP] * 3 + [ENDS[1]],
    State.OPENED: [HEAD] * 8 + [*"abcdefgh "] + [END],
    State.CODE: [END] * 4 + [*"cdé "],
    State.TRAPPED: [END],
}


def language(*, reserved: bool) -> Language:
    """One token a byte; with tokens for CML's delimiters, or without."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    plain = tokenizers.Tokenizer(models.BPE({letter: at for at, letter in enumerate(alphabet)}, []))
    plain.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    plain.decoder = decoders.ByteLevel()
    plain.add_special_tokens([*ENDS, *(RESERVED if reserved else ())])
    begin, end = (plain.token_to_id(name) for name in ENDS)
    size = plain.get_vocab_size()
    facts = ModelFacts("babbler", "0" * 64, size, 4096, (end,), begin)
    return Language(facts, Tokenizer(json.loads(plain.to_str()), size, [end], begin), ChatTemplate(TEMPLATE))


class Babbler:
    """What it says is a hash of all before it. With reserved tokens it does not care for the grammar: masks must; as
    text it keeps it, since nothing else does. Called with all tokens before one, it gives that one."""

    def __init__(self, words: Language, *, reserved: bool, script: Script | None = None) -> None:
        self._words, self._reserved, self._script = words, reserved, script

    def __call__(self, seen: Int32) -> list[int]:
        return [self._next(seen)]

    def _next(self, seen: Int32) -> int:
        if self._script is not None:
            said = self._words._need_tokenizer().decode(seen.tolist(), True).partition("?")[2]
            follows = self._script(said)
            return self._encode(follows, self._reserved or follows == ENDS[1])
        number = int.from_bytes(hashlib.blake2b(seen.tobytes(), digest_size=8).digest(), "little")
        if self._reserved and number % 16 == 0:
            return self._encode(RESERVED[number // 16 % len(RESERVED)], True)
        tokenizer = self._words._need_tokenizer()
        said = INTERRUPT.sub("", tokenizer.decode(seen.tolist(), True).partition("?")[2])
        state, held = self._read(said)
        words = [word for word in LIKELY[state] if word.startswith(held)]
        word = words[number // 16 % len(words)]
        whole = self._reserved or word == ENDS[1]
        return self._encode(word if whole else word[len(held)], whole)

    def _read(self, said: str) -> tuple[State, str]:
        """Where in the grammar this ends, and the beginning of a delimiter at its end."""
        parser = Parser()
        try:
            parser.feed(said)
        except Malformed:                    # a row ahead of a sample that is void
            return State.OUTSIDE, ""
        return parser.state, parser.held

    def _encode(self, text: str, special: bool) -> int:
        return self._words._need_tokenizer().encode(text, special)[0]


def prepare() -> None:
    """Compiles the interpreter if it was not compiled before: that takes child processes, and real time."""
    async def once() -> None:
        async with babbling(reserved=True):
            pass
    asyncio.run(once())


@asynccontextmanager
async def babbling(*, reserved: bool, script: Script | None = None) -> AsyncIterator[Kernel]:
    """A kernel beside the babbler, or one who keeps to a script; nothing is left of it at the end."""
    words = language(reserved=reserved)
    babbler = Babbler(words, reserved=reserved, script=script)
    link = LocalLink(Speaker(babbler, words.facts.vocabulary_size, STEP_MS))
    with tempfile.TemporaryDirectory() as state:
        kernel = await assemble(link, words, Assembly(Path(state)))
        try:
            yield kernel
        finally:
            await kernel.close()
