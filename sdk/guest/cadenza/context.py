"""A context: what the model has before it. A KV file, the tokens it stands for, and ways to go on from there."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any, Self

from . import model
from .conversation import Conversation
from .decoding import Decoding
from .errors import Busy, Invalid
from .generation import Generation
from .inference import Completion, Mask, Probe, Run, Sampler, State, Top, TopTokens, forward
from .kv import File
from .model import Message


class Context:
    """Text that the model continues. `async with Context() as context:` gives its pages back at the end.

    Filling is free: tokens are computed when something is asked of the model, or by `prefill`. One thing at a time
    goes on in a context; for more, fork it. Methods raise Busy while a generation is under way.

        context = Context()
        context.system("Be brief.")
        context.user("What is 17 times 23?")
        async for piece in context.generate(max_tokens=100):
            print(piece, end="")
    """

    # Invariant, while no pass is under way: what `file` holds is a prefix of `_tokens`.

    def __init__(
        self,
        file: File | None = None,
        tokens: Sequence[int] = (),
        positions: Sequence[int] = (),
        *,
        adapter: str | None = None,
    ) -> None:
        """Empty, or begun: `tokens` are those that `file` holds, which is the context's from now on, and those that
        are yet to be computed, these at `positions`. What comes later follows the last of them. `adapter`: the name
        of one of the user's, under which it computes."""
        self.adapter = adapter
        self.file = file or File.create()
        self._tokens = list(tokens)
        self._positions = list(positions)
        self._placed = len(self._tokens) - len(self._positions)     # where in `_tokens` those with positions begin
        self._chat = Conversation()
        self._chat_start = 0                # where in `_tokens` the first message begins
        self._under_way = ""                # what the context is busy with

    @classmethod
    def open(cls, path: str) -> Self:
        """The context that was saved at `path`; what is added from now on is added to that file, and durable with the
        next `save`. A chat goes on with the next message. Raises NotFound, Denied."""
        file = File.open(path, "read", "append")
        context = cls(file, file.tokens())
        context._chat = Conversation(resumed=True)
        return context

    async def save(self, path: str = "") -> None:
        """Computes what is not computed yet and writes everything to disk, under the name `path`, or the one it has.
        Returns when it would survive a crash. Raises Exists, LimitExceeded."""
        self._write(generate=False)
        if computed := self._tokens[self.file.status().tokens :]:
            await self._pass(computed)
        if path:
            self.file.link(path)
        await self.file.sync()

    # --- what it holds ---

    def __len__(self) -> int:
        """How many tokens it holds."""
        return len(self.tokens)

    def __bool__(self) -> bool:
        return True

    @property
    def tokens(self) -> list[int]:
        """All its tokens, in order."""
        self._write(generate=False)
        return list(self._tokens)

    @property
    def text(self) -> str:
        """All of it as text, special tokens written out."""
        return model.detokenize(self.tokens, special=True)

    @property
    def messages(self) -> list[Message]:
        """The chat so far, the assistant's answers too."""
        return self._chat.messages()

    # --- filling ---

    def fill(self, content: str | Sequence[int], special: bool = False) -> None:
        """Appends a text or tokens. After chat messages it is the beginning of the assistant's answer.

        `special`: whether names of special tokens in the text become those tokens; leave it for untrusted text.
        The first text in an empty context follows the model's begin token, if it has one.
        """
        self._write(generate=True)
        tokens = model.tokenize(content, special) if isinstance(content, str) else list(content)
        if self._chat.answer is not None:
            self._chat.say(content if isinstance(content, str) else tokens)
        begin = model.facts().begin_token
        if isinstance(content, str) and not self._tokens and begin is not None and tokens[:1] != [begin]:
            self._tokens.append(begin)
        self._tokens += tokens

    def message(self, role: str, text: str, **more: object) -> None:
        """Adds a chat message; the model's own template writes it. `more`: other keys that the template reads."""
        self._idle()
        if not self._chat:
            self._chat_start = len(self._tokens)
        self._chat.add(role, text, **more)

    def system(self, text: str) -> None:
        """Adds a message that tells the model how to behave."""
        self.message("system", text)

    def user(self, text: str) -> None:
        """Adds what a user says. Names of special tokens in it stay text."""
        self.message("user", text)

    def assistant(self, text: str) -> None:
        """Adds what the assistant said; `generate` adds its own answers by itself."""
        self.message("assistant", text)

    def tool(self, text: str) -> None:
        """Adds what a tool answered. Names of special tokens in it stay text."""
        self.message("tool", text)

    def truncate(self, tokens: int) -> None:
        """Keeps the first `tokens`. A chat becomes plain text by this."""
        self._write(generate=False)
        if not 0 <= tokens <= len(self._tokens):
            raise Invalid(f"cannot keep the first {tokens} of {len(self._tokens)} tokens")
        self._chat = Conversation()
        self._cut(tokens)

    def fork(self) -> Self:
        """Another context with the same content: constant time, pages shared until one of the two writes.

        What is not computed yet, both compute: `await prefill()` first.
        """
        self._idle()
        other = type(self).__new__(type(self))
        other.file, other.adapter = self.file.fork(), self.adapter
        other._tokens, other._chat, other._chat_start = self._tokens[:], self._chat.copy(), self._chat_start
        other._positions, other._placed = self._positions, self._placed
        other._under_way = ""
        return other

    # --- asking the model ---

    async def prefill(self) -> None:
        """Computes what is not computed yet, all but the last token: that one is computed by what comes next."""
        self._write(generate=False)
        if self._tokens and len(pending := self._pending()) > 1:
            await self._pass(pending[:-1])

    def generate(
        self,
        max_tokens: int | None = None,
        *,
        sampler: Sampler | None = None,
        stop: str | Sequence[str] = (),
        stop_tokens: Sequence[int] | None = None,
        mask: Mask | None = None,
        deliver_every: int = 1,
        adapter: str | None = None,
        speculation: Callable[..., Run] = Run,
    ) -> Generation:
        """Lets the model go on: an async iterator of text, `.text()` for all of it. Begins at once, never blocks.

        Ends with a stop token (the model's own by default; part of the context, not of the text), with a `stop`
        string (not part of the text), after `max_tokens`, or when the context is full. `deliver_every`: how many
        tokens come at a time. `adapter`: in place of the context's, for what is computed from here on. `speculation`:
        what begins a run that comes to the same, sooner (inferlets/speculation). Raises Invalid when the context is
        empty, TooLong, NoPages, NotFound.
        """
        ends = model.facts().stop_tokens if stop_tokens is None else frozenset(stop_tokens)
        stops = (stop,) if isinstance(stop, str) else stop
        run = self._run(max_tokens, sampler=sampler, mask=mask, stop_tokens=sorted(ends), deliver_every=deliver_every,
                        adapter=adapter, speculation=speculation)
        return Generation(run, self._tokens, self._settled, stops, ends)

    def decode(
        self,
        max_tokens: int | None = None,
        *,
        sampler: Sampler | None = None,
        stop_tokens: Sequence[int] | None = None,
        stop_sequences: Sequence[Sequence[int]] = (),
        mask: Mask | None = None,
        states: Sequence[State] = (),
        deliver_every: int = 1,
        adapter: str | None = None,
        speculation: Callable[..., Run] = Run,
    ) -> Decoding:
        """As `generate`, token by token; `states` say what may be sampled by what was, and when what is put in
        (`interject`) goes in."""
        ends = model.facts().stop_tokens if stop_tokens is None else frozenset(stop_tokens)
        run = self._run(
            max_tokens, sampler=sampler, mask=mask, stop_tokens=sorted(ends), stop_sequences=stop_sequences,
            states=states, deliver_every=deliver_every, adapter=adapter, speculation=speculation,
        )  # fmt: skip
        return Decoding(run, self._tokens, self._settled, ends)

    def _run(
        self, max_tokens: int | None, *, adapter: str | None, speculation: Callable[..., Run], **options: Any
    ) -> Run:
        self._write(generate=True)
        pending = self._pending()
        room = max(1, model.facts().context_tokens - len(self._tokens))
        positions = self._positions_of(len(self._tokens) - len(pending), len(pending))
        most = room if max_tokens is None else max_tokens
        run = speculation(
            self.file, pending, positions=positions, max_tokens=most, adapter=adapter or self.adapter, **options
        )
        self._under_way = "generating"
        return run

    async def score(self, continuation: str | Sequence[int]) -> list[float]:
        """The log-probability of each token of a continuation (natural logarithm). The context stays as it is."""
        self._write(generate=True)
        wanted = model.tokenize(continuation) if isinstance(continuation, str) else list(continuation)
        if not wanted:
            return []
        fed = self._pending()
        try:
            done = await self._pass([*fed, *wanted], scores_from=len(fed) - 1)
        finally:
            self._cut(len(self._tokens))
        return done.scores

    async def top(self, count: int = 10) -> TopTokens:
        """The likeliest next tokens with their log-probabilities. The context stays as it is."""
        self._write(generate=True)
        pending = self._pending()
        done = await self._pass(pending, [(len(pending) - 1, Top(count))])
        answer = done.probes[0]
        assert isinstance(answer, TopTokens)
        return answer

    # --- its end ---

    def close(self) -> None:
        """Gives its pages back. Idempotent."""
        self.file.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        self.close()

    def __del__(self) -> None:
        if "file" in self.__dict__:
            self.close()

    # --- the file beneath ---

    def _idle(self) -> None:
        if self._under_way:
            raise Busy(f"this context is {self._under_way}: let it end, stop it, or use a fork made before")

    def _write(self, generate: bool) -> None:
        """Makes `_tokens` what the chat template says: what is common with it stays, the rest is replaced."""
        self._idle()
        if not self._chat or self._chat.answer is not None:
            return
        wanted = self._chat.tokens(generate)
        held = self._tokens[self._chat_start :]
        common = next((at for at, pair in enumerate(zip(held, wanted, strict=False)) if pair[0] != pair[1]), None)
        common = min(len(held), len(wanted)) if common is None else common
        self._cut(self._chat_start + common)
        self._tokens += wanted[common:]
        if generate:
            self._chat.begin_answer()

    def _cut(self, tokens: int) -> None:
        """Keeps the first `tokens`, in the file too."""
        del self._tokens[tokens:]
        if self.file.status().tokens > tokens:
            self.file.truncate(tokens)

    def _pending(self) -> list[int]:
        """The tokens that the file does not hold yet, at least one: the last is computed again if need be."""
        if not self._tokens:
            raise Invalid("this context is empty: fill it, or add a message, before asking the model")
        computed = self.file.status().tokens
        if computed >= len(self._tokens):
            computed = len(self._tokens) - 1
            self.file.truncate(computed)
        return self._tokens[computed:]

    def _positions_of(self, first: int, count: int) -> list[int]:
        """Where the tokens from `first` on stand; nothing, where they follow what is before them."""
        at = first - self._placed
        known = self._positions[at : at + count] if at >= 0 else []
        return [*known, *range(known[-1] + 1, known[-1] + 1 + count - len(known))] if known else []

    async def _pass(self, tokens: list[int], probes: Sequence[tuple[int, Probe]] = (),
                    scores_from: int | None = None) -> Completion:  # fmt: skip
        self._under_way = "computing"
        try:
            positions = self._positions_of(self.file.status().tokens, len(tokens))
            return await forward(self.file, tokens, positions=positions, probes=probes, adapter=self.adapter,
                                 scores_from=scores_from)  # fmt: skip
        finally:
            self._under_way = ""

    def _settled(self, decoding: Decoding) -> None:
        """It has ended: what it did not give is undone."""
        self._under_way = ""
        if self._chat.answer is not None:
            self._chat.say(decoding.answer)
            if decoding.finish == "stop-token" and decoding.keeps_stop_token:
                self._chat.end_answer()
        if not self.file.closed:
            self._cut(len(self._tokens))
