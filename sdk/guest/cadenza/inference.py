"""The bare model calls under `Context`: one forward pass, and a run of them that the kernel continues by itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Literal, Self

from componentize_py_types import Err
from wit_world.imports import inference as kernel

from . import loop
from .errors import checked, error_of
from .events import Handle
from .grammar import Grammar
from .kv import File

Finish = Literal["running", "stop-token", "stop-sequence", "length", "context-full", "stopped", "grammar-end"]
"""How a run ended: the model ended the text, a sequence came, as many tokens as asked for, no room, `stop`, or nothing
may follow and the model has no token that says so."""

FINISH: dict[kernel.Finish, Finish] = {
    kernel.Finish.RUNNING: "running",
    kernel.Finish.STOP_TOKEN: "stop-token",
    kernel.Finish.STOP_SEQUENCE: "stop-sequence",
    kernel.Finish.LENGTH: "length",
    kernel.Finish.CONTEXT_FULL: "context-full",
    kernel.Finish.STOPPED: "stopped",
    kernel.Finish.GRAMMAR_END: "grammar-end",
}

_forward = checked(kernel.forward)
_take_pass = checked(kernel.take_pass)
_decode = checked(kernel.decode)
_stop = checked(kernel.stop)
_interject = checked(kernel.interject)
_verify = checked(kernel.verify)
_take_verified = checked(kernel.take_verified)


@dataclass(frozen=True)
class Penalties:
    """What was said before becomes less likely (or more): tokens among the last `window` that the model reads, the
    prompt's too; among all, if that is 0.

    `repetition` divides logits above 0 and multiplies others; `frequency` is subtracted as often as the token is
    there, `presence` once. 1, 0 and 0 are off.
    """

    repetition: float = 1.0
    frequency: float = 0.0
    presence: float = 0.0
    window: int = 0


@dataclass(frozen=True)
class Sampler:
    """How a token is drawn. Greedy as it stands; `temperature` above 0 draws, the same for the same seed and tokens.

    `top_k` 0, `top_p` 1 and `min_p` 0 are off. `bias` is added to the logits of tokens, before all else.
    """

    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    seed: int = 0
    bias: Mapping[int, float] = field(default_factory=dict)
    penalties: Penalties | None = None


@dataclass(frozen=True)
class Mask:
    """`tokens` are the only ones that may be drawn or, with `allowed=False`, the only ones that may not."""

    tokens: Sequence[int]
    allowed: bool = True


@dataclass(frozen=True)
class State:
    """What a run may sample now. A sampled token among `moves` leads to another state, by its number; any other leads
    to `otherwise`, or nowhere. Interjections wait while it is not `open`."""

    mask: Mask | None = None
    moves: Mapping[int, int] = field(default_factory=dict)
    otherwise: int | None = None
    open: bool = True


@dataclass(frozen=True)
class Visible:
    """Offsets `first` up to `first + count` are visible to input row `row`; a row without ranges sees all before it."""

    row: int
    first: int
    count: int


@dataclass(frozen=True)
class Top:
    """Asks for the `count` likeliest next tokens; answered by `TopTokens`."""

    count: int


@dataclass(frozen=True)
class LogProbabilities:
    """Asks for the log-probabilities of `tokens` as the next one; answered by a list of floats (natural logarithm)."""

    tokens: Sequence[int]


@dataclass(frozen=True)
class Entropy:
    """Asks for the entropy of the next token; answered by a float (nats)."""


@dataclass(frozen=True)
class Logits:
    """Asks for all logits; answered by a list of floats, one a token of the vocabulary."""


@dataclass(frozen=True)
class Hidden:
    """Asks for the model's last hidden state, normed; answered by a list of floats."""


Probe = Top | LogProbabilities | Entropy | Logits | Hidden


@dataclass(frozen=True)
class TopTokens:
    """The likeliest tokens, likeliest first; `tail` is the probability of all the others together."""

    tokens: list[int]
    log_probabilities: list[float]
    tail: float


Answer = TopTokens | list[float] | float


@dataclass(frozen=True)
class Completion:
    """What a pass gave: a token for each sample asked for, an answer for each probe; the log-probabilities of its own
    tokens, from the one after row `scores_from` on."""

    tokens: list[int]
    probes: list[Answer]
    computed_tokens: int
    reused_tokens: int
    scores: list[float]


async def forward(
    file: File,
    tokens: Sequence[int],
    *,
    reads: Sequence[File] = (),
    positions: Sequence[int] = (),
    visible: Sequence[Visible] = (),
    mask: Mask | None = None,
    samples: Sequence[tuple[int, Sampler]] = (),
    probes: Sequence[tuple[int, Probe]] = (),
    adapter: str | None = None,
    scores_from: int | None = None,
    grammar: Grammar | None = None,
) -> Completion:
    """Appends `tokens` (one at least) to `file` in one pass over `reads` and it.

    `samples` and `probes` are asked of rows: row 0 is the first of `tokens`, and tells of the token after it.
    Without `positions` they follow those that are read. `adapter`: the name of one of the user's, to compute under.
    `scores_from`: from that row on each tells how likely the token after it was.
    `grammar`: what is sampled may come next in it; it is not moved.
    Raises Invalid, TooLong, NoPages, Busy, LimitExceeded, NotFound.
    Cancelled, the pass is too, and `file` holds what it held or all.
    """
    handle = Handle(
        _forward(
            kernel.Pass(
                file.descriptor,
                [read.descriptor for read in reads],
                list(tokens),
                list(positions),
                [kernel.VisibleRange(seen.row, seen.first, seen.count) for seen in visible],
                mask_of(mask),
                [kernel.SampleRequest(row, sampler_of(sampler)) for row, sampler in samples],
                [kernel.ProbeRequest(row, probe_of(probe)) for row, probe in probes],
                adapter,
                scores_from,
                None if grammar is None else grammar.handle.number,
            )
        )
    )
    try:
        await handle
        done = _take_pass(handle.number)
    finally:
        handle.close()
    answers = [answer_of(probe) for probe in done.probes]
    return Completion(list(done.tokens), answers, done.computed_tokens, done.reused_tokens, list(done.scores))


class Run:
    """Forward `tokens`, sample, forward the sampled, … until something ends it, without the program being asked.

    `await run.take()` until `finish` is no longer "running". Afterwards the file holds what it held, `tokens`, and
    all that was sampled but the last. Of its input so many tokens were computed by the last take (`computed_tokens`),
    and so many reused: they were in the pool (`reused_tokens`). `interjected` are the ranges, (first, count), of the
    tokens last taken that the program put in, one for each interjection, in their order.
    """

    __slots__ = ("computed_tokens", "finish", "handle", "interjected", "reused_tokens")

    def __init__(
        self,
        file: File,
        tokens: Sequence[int],
        *,
        max_tokens: int,
        sampler: Sampler | None = None,
        reads: Sequence[File] = (),
        positions: Sequence[int] = (),
        mask: Mask | None = None,
        stop_tokens: Sequence[int] = (),
        stop_sequences: Sequence[Sequence[int]] = (),
        deliver_every: int = 1,
        states: Sequence[State] = (),
        adapter: str | None = None,
        grammar: Grammar | None = None,
    ) -> None:
        """Starts it. Raises Invalid, TooLong, NoPages, Busy, LimitExceeded, NotFound. `deliver_every`: tokens at a
        time. `states`: what may be sampled, by what was; the run begins in the first. `adapter`: the name of one of
        the user's, to compute under. `grammar`: what may be sampled, which moves it; it stands where the tokens end
        that were taken."""
        self.finish: Finish = "running"
        self.interjected: list[tuple[int, int]] = []
        self.computed_tokens = self.reused_tokens = 0
        self.handle = Handle(
            _decode(
                kernel.Run(
                    file.descriptor,
                    [read.descriptor for read in reads],
                    list(tokens),
                    list(positions),
                    mask_of(mask),
                    sampler_of(sampler or Sampler()),
                    max_tokens,
                    list(stop_tokens),
                    [list(sequence) for sequence in stop_sequences],
                    deliver_every,
                    [state_of(state) for state in states],
                    adapter,
                    None if grammar is None else grammar.handle.number,
                )
            )
        )

    async def take(self) -> list[int]:
        """The tokens that came since the last time, one at least unless it has ended; sets `finish`."""
        if self.finish != "running":
            return []
        # After its first tokens nothing is left to tell of its input: the rest may come in one call each.
        if (self.computed_tokens or self.reused_tokens) and loop.running().idle:
            token = kernel.next_token(self.handle.number)
            if token >= 0:
                self.interjected = []
                return [token]
        else:
            await self.handle
        try:
            progress = kernel.take_tokens(self.handle.number)
        except Err as refusal:
            self.finish = "stopped"
            self.handle.close()
            raise error_of(refusal) from None
        self.computed_tokens, self.reused_tokens = progress.computed_tokens, progress.reused_tokens
        self.interjected = [(put_in.first, put_in.count) for put_in in progress.interjected]
        if progress.finish is not kernel.Finish.RUNNING:
            self.finish = FINISH[progress.finish]
            self.handle.close()
        return progress.tokens

    def interject(self, tokens: Sequence[int]) -> None:
        """Puts tokens in behind the last sampled one, as soon as the run's state is open. Never blocks.

        What no `take` has reported in `interjected` when the run has ended was not put in. Raises Closed when it has
        ended already, TooLong, LimitExceeded.
        """
        _interject(self.handle.number, list(tokens))

    def stop(self) -> None:
        """Ends it as if it had never gone past the tokens already taken. Idempotent; never blocks."""
        if self.finish == "running":
            self.finish = "stopped"
            _stop(self.handle.number)
            self.handle.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.stop()


@dataclass(frozen=True)
class Verdict:
    """The drafted tokens that the model says, then one more. `accepted`: how many were drafted. `computed_tokens`:
    rows of the pass, fewer than the draft has when the device had no more room, or the grammar does not allow some.
    `finish`: "running", or how the grammar ends it there."""

    tokens: list[int]
    accepted: int
    computed_tokens: int
    finish: Finish


class Verification:
    """What the model says behind `token`, the last that is known, as far as it is drafted: in one pass, and what
    decoding would have said. `await verification.take()`; `file` then holds `token` and the accepted ones too.

    `drafted` is a tree: the parent of each token is `token`, 0, or the number, from 1 on, of one before it. The likely
    ones come first. `grammar` stands behind `token`, and is moved by what the model says.
    """

    __slots__ = ("handle",)

    def __init__(
        self,
        file: File,
        token: int,
        drafted: Sequence[int],
        parents: Sequence[int],
        *,
        sampler: Sampler | None = None,
        reads: Sequence[File] = (),
        mask: Mask | None = None,
        adapter: str | None = None,
        grammar: Grammar | None = None,
    ) -> None:
        """Submits it, and never blocks. Raises what `forward` raises."""
        self.handle = Handle(
            _verify(
                kernel.Draft(
                    file.descriptor,
                    [read.descriptor for read in reads],
                    token,
                    list(drafted),
                    list(parents),
                    sampler_of(sampler or Sampler()),
                    mask_of(mask),
                    adapter,
                    None if grammar is None else grammar.handle.number,
                )
            )
        )

    async def take(self) -> Verdict:
        """Once. Raises what went wrong; then, or cancelled, `file` holds what it held."""
        try:
            await self.handle
            verdict = _take_verified(self.handle.number)
        finally:
            self.handle.close()
        return Verdict(verdict.tokens, verdict.accepted, verdict.computed_tokens, FINISH[verdict.finish])


def sampler_of(sampler: Sampler) -> kernel.Sampler:
    bias = [kernel.Bias(token, float(value)) for token, value in sampler.bias.items()]
    return kernel.Sampler(
        float(sampler.temperature), sampler.top_k, float(sampler.top_p), float(sampler.min_p), sampler.seed,
        bias, penalties_of(sampler.penalties),
    )  # fmt: skip


def penalties_of(penalties: Penalties | None) -> kernel.Penalties | None:
    if penalties is None:
        return None
    repetition, frequency, presence = map(float, (penalties.repetition, penalties.frequency, penalties.presence))
    return kernel.Penalties(repetition, frequency, presence, penalties.window)


def mask_of(mask: Mask | None) -> kernel.LogitMask | None:
    return None if mask is None else kernel.LogitMask(list(mask.tokens), mask.allowed)


def state_of(state: State) -> kernel.State:
    moves = [kernel.Move(*move) for move in state.moves.items()]
    return kernel.State(mask_of(state.mask), moves, state.otherwise, state.open)


def probe_of(probe: Probe) -> kernel.Probe:
    match probe:
        case Top(count):
            return kernel.Probe_Top(count)
        case LogProbabilities(tokens):
            return kernel.Probe_LogProbabilities(list(tokens))
        case Entropy():
            return kernel.Probe_Entropy()
        case Logits():
            return kernel.Probe_Logits()
        case Hidden():
            return kernel.Probe_Hidden()


def answer_of(answer: kernel.ProbeAnswer) -> Answer:
    if isinstance(answer, kernel.ProbeAnswer_Top):
        top = answer.value
        return TopTokens(list(top.tokens), list(top.log_probabilities), top.tail)
    return answer.value
