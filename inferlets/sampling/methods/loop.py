"""A pass a token: what the model says of the next one, the method's choice, and the text on its way out.

A method that needs the likeliest tokens only is given those; where they do not decide (`Undecided`), it is asked again
with more, up to all. So what it keeps is what it would have kept of the whole distribution, at the price of a short
probe. A method over all logits takes a list as long as the vocabulary for each token.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, TypeVar

import cadenza

from .distribution import Distribution, Undecided

T = TypeVar("T")
Choose = Callable[[Distribution, Sequence[int]], int]
"""Of the next token's distribution, and all tokens before it: the token. May raise Undecided, if it has drawn nothing
yet."""

FIRST = 64              # tokens asked for at first
WIDER = 8               # times as many, whenever those did not decide
WIDEST = 4096           # the most that one probe answers (PROBE_TOKENS of the ABI); beyond it: all logits


def opened(args: Mapping[str, Any]) -> cadenza.Context:
    """A context of the `prompt`, or of the `question` of a chat up to where the answer begins."""
    context = cadenza.Context(adapter=args.get("adapter"))
    if "question" in args:
        context.user(args["question"])
        context.fill("")
    else:
        context.fill(args["prompt"])
    return context


async def probed(context: cadenza.Context, *probes: cadenza.inference.Probe) -> list[Any]:
    """What the probes say of the next token, in one pass that computes what is not computed yet. The context stays as
    it is."""
    tokens = context.tokens
    computed = context.file.status().tokens
    if computed >= len(tokens):             # the last token is computed again
        computed = len(tokens) - 1
        context.file.truncate(computed)
    asked = [(len(tokens) - computed - 1, probe) for probe in probes]
    done = await cadenza.forward(context.file, tokens[computed:], probes=asked, adapter=context.adapter)
    return list(done.probes)


async def logits(context: cadenza.Context) -> list[float]:
    [answer] = await probed(context, cadenza.Logits())
    return [*answer]


class Look:
    """Looks at the next token of a context: at as many of the likeliest as decided the last time."""

    def __init__(self, context: cadenza.Context, *, entropy: bool = False) -> None:
        self._context = context
        self._entropy = entropy
        self._count = FIRST

    async def __call__(self, decide: Callable[[Distribution], T]) -> T:
        """What `decide` makes of the distribution."""
        while True:
            try:
                return decide(await self._seen())
            except Undecided:
                self._count *= WIDER

    async def _seen(self) -> Distribution:
        size = cadenza.model.facts().vocabulary_size
        count = min(self._count, size)
        if count > WIDEST:
            return Distribution.of_logits(await logits(self._context))
        probes = (cadenza.Top(count), cadenza.Entropy())[: 1 + self._entropy]
        top, *entropy = await probed(self._context, *probes)
        return Distribution(top.tokens, top.log_probabilities, count == size, *entropy)


async def say(
    args: Mapping[str, Any], following: Callable[[], Awaitable[int]], *contexts: cadenza.Context
) -> list[int]:
    """Puts one token after another into the contexts, prints them, and answers them all. Ends before a stop token, or
    after `max_tokens`."""
    from cadenza.text import TextStream  # here, since a program alone has it: tests import the mathematics elsewhere

    stream, said = TextStream(), list[int]()
    while len(said) < args.get("max_tokens", 64):
        token = await following()
        if token in cadenza.model.facts().stop_tokens:
            break
        for context in contexts:
            context.fill([token])
        said.append(token)
        print(stream.feed(token), end="", flush=True)
    print(stream.end())
    return said


async def speak(args: Mapping[str, Any], choose: Choose, *, entropy: bool = False) -> list[int]:
    """`say` of one context, whose tokens are chosen by the likeliest ones."""
    async with opened(args) as context:
        look = Look(context, entropy=entropy)
        return await say(args, lambda: look(lambda seen: choose(seen, context.tokens)), context)
