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
from cadenza.inferlets.async_calls.rules import RULES
from cadenza.kernel.device.batch import Int32
from cadenza.kernel.device.local_link import LocalLink
from cadenza.kernel.grammar.matcher import Beginning
from cadenza.kernel.grammar.source import Source
from cadenza.kernel.grammar.vocabulary import compiled
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
"""What follows, after the text behind the question mark: said as long as nothing comes in between."""
LIKELY = {
    State.OUTSIDE: [CALL] * 14 + [*"aaabbb"] + [TRAP] * 3 + [ENDS[1]],
    State.OPENED: [HEAD] * 8 + [*"abcdefgh "],
    State.TRAPPED: [END],
}
UNRULY = [*RESERVED, ENDS[1], "[", "]", "x", "(", '"']


def likely(state: State, said: str) -> list[str]:
    """What may follow as text; `said`: of the call so far."""
    if state in (State.OUTSIDE, State.TRAPPED):
        return LIKELY[state]
    if said.count('"') % 2:
        return [*'""x[é', END]
    if said.endswith(")"):
        return [END]
    if "(" in said:
        return [*'1")'] if said.endswith(("(", ",")) else [*"1)))", ","]
    return ["("] if state is State.CODE and said else LIKELY[State.OPENED] if said else [*"fgh"]


def language(*, reserved: bool) -> Language:
    """One token a byte; with tokens for CML's delimiters, or without."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    plain = tokenizers.Tokenizer(models.BPE({letter: at for at, letter in enumerate(alphabet)}, []))
    plain.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    plain.decoder = decoders.ByteLevel()
    plain.add_special_tokens([*ENDS, *(RESERVED if reserved else ())])
    begin, end = (plain.token_to_id(name) for name in ENDS)
    size = plain.get_vocab_size()
    facts = ModelFacts("babbler", "0" * 64, size, 16_384, (end,), begin)
    return Language(facts, Tokenizer(json.loads(plain.to_str()), size, [end], begin), ChatTemplate(TEMPLATE))


class Babbler:
    """What it says is a hash of all before it. It does not care for the grammar, masks must: with reserved tokens
    never, as text one time in eight, since random letters make no calls. Called with all tokens before one, it gives
    that one."""

    def __init__(self, words: Language, *, reserved: bool, script: Script | None = None) -> None:
        self._words, self._reserved, self._script = words, reserved, script

    def __call__(self, seen: Int32) -> list[int]:
        if self._script is None:
            return [self._next(seen)]
        tokenizer = self._words._need_tokenizer()
        follows = self._script(tokenizer.decode(seen.tolist(), True).partition("?")[2])
        return tokenizer.encode(follows, self._reserved or follows == ENDS[1])

    def _next(self, seen: Int32) -> int:
        number = int.from_bytes(hashlib.blake2b(seen.tobytes(), digest_size=8).digest(), "little")
        if self._reserved and number % 16 == 0:
            return self._encode(RESERVED[number // 16 % len(RESERVED)], True)
        tokenizer = self._words._need_tokenizer()
        said = INTERRUPT.sub("", tokenizer.decode(seen.tolist(), True).partition("?")[2])
        parser = self._read(said)
        words = UNRULY if number % 8 == 0 else likely(parser.state, parser._text + parser.held)
        held = parser.held
        words = [word[len(held):] for word in words if word.startswith(held) and word != held] or words
        word = words[number // 16 % len(words)]
        whole = self._reserved or word == ENDS[1]
        return self._encode(word if whole else word[:1], whole)

    def _read(self, said: str) -> Parser:
        """Where in the grammar this ends."""
        parser = Parser()
        try:
            parser.feed(said)
        except Malformed:                    # a row ahead of a sample that is void
            return Parser()
        return parser

    def _encode(self, text: str, special: bool) -> int:
        return self._words._need_tokenizer().encode(text, special)[0]


def prepare() -> None:
    """Compiles the interpreter if it was not compiled before: that takes child processes, and real time."""
    async def once() -> None:
        async with babbling(reserved=True):
            pass
    asyncio.run(once())


def know_rules(kernel: Kernel, words: Language) -> None:
    """As if somebody had compiled the library's grammar before: that takes a child process too."""
    source, vocabulary = Source("lark", RULES), words.spelled()
    made = compiled(vocabulary.tokenizer(), source.grammar())
    assert not made.is_error(), made.get_error()
    kernel.grammars._keep(("ada", source.digest), Beginning(made, len(vocabulary), len(vocabulary), vocabulary.stops))


@asynccontextmanager
async def babbling(*, reserved: bool, script: Script | None = None) -> AsyncIterator[Kernel]:
    """A kernel beside the babbler, or one who keeps to a script; nothing is left of it at the end."""
    words = language(reserved=reserved)
    babbler = Babbler(words, reserved=reserved, script=script)
    link = LocalLink(Speaker(babbler, words.facts.vocabulary_size, STEP_MS))
    with tempfile.TemporaryDirectory() as state:
        kernel = await assemble(link, words, Assembly(Path(state)))
        if not reserved:
            know_rules(kernel, words)
        try:
            yield kernel
        finally:
            await kernel.close()
