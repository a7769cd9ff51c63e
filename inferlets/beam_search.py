"""Beam search: the likeliest continuations as wholes, not token by token.

    cadenza run inferlets/beam_search.py --prompt "The capital" --width 4 --max_tokens 20

Arguments: `prompt`, or `question` for a chat. `width`, how many beams are kept (4). `max_tokens` (32). `length_penalty`
(1): a beam's score is its log-probability over its length to this power (Wu et al., 2016, section 7). Prints the beams
with their scores, the best one last.

Each beam is a context; what beams have in common is computed and stored once.
"""

import asyncio
from dataclasses import dataclass

import cadenza


@dataclass
class Beam:
    """A continuation: its context, its own tokens, their log-probability in all."""

    context: cadenza.Context
    tokens: list[int]
    log_probability: float
    ended: bool = False

    def score(self, length_penalty: float) -> float:
        return float(self.log_probability / max(1, len(self.tokens)) ** length_penalty)

    def extended(self, token: int, log_probability: float, stop_tokens: frozenset[int]) -> "Beam":
        """A new beam: this one and another token."""
        context = self.context.fork()
        context.fill([token])
        total = self.log_probability + log_probability
        return Beam(context, [*self.tokens, token], total, token in stop_tokens)


async def search(start: cadenza.Context, width: int, max_tokens: int, length_penalty: float) -> list[Beam]:
    """The best continuations of `start`, best first."""
    stop_tokens = cadenza.model.facts().stop_tokens
    kept = [Beam(start, [], 0.0)]
    for _ in range(max_tokens):
        open_beams = [beam for beam in kept if not beam.ended]
        if not open_beams:
            break
        tops = await asyncio.gather(*(beam.context.top(width) for beam in open_beams))
        candidates = [beam for beam in kept if beam.ended]
        for beam, top in zip(open_beams, tops, strict=True):
            for token, log_probability in zip(top.tokens, top.log_probabilities, strict=True):
                candidates.append(beam.extended(token, log_probability, stop_tokens))
        kept = sorted(candidates, key=lambda beam: beam.score(length_penalty), reverse=True)[:width]
    return kept


async def main(args: cadenza.Arguments) -> None:
    async with cadenza.Context() as start:
        if "question" in args:
            start.user(args.question)
        else:
            start.fill(args.prompt)
        penalty = args.get("length_penalty", 1.0)
        found = await search(start, args.get("width", 4), args.get("max_tokens", 32), penalty)
        for beam in reversed(found):
            print(f"{beam.score(penalty):8.3f}  {cadenza.model.detokenize(beam.tokens)}")
