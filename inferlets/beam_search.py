"""Beam search: the likeliest continuations as wholes, not token by token.

    cadenza run inferlets/beam_search.py --prompt "The capital" --width 4 --max_tokens 20

Arguments: `prompt`, or `question` for a chat. `width`, how many beams are kept (4). `max_tokens` (32). `length_penalty`
(1): a beam's score is its log-probability over its length to this power (Wu et al., 2016, section 7). Prints the beams
with their scores, the best one last.

Each beam is a context; what beams have in common is computed and stored once. Where one becomes several, no more is
copied than the page that was not full yet.
"""

import asyncio
from collections import Counter
from dataclasses import dataclass

import cadenza


@dataclass(eq=False)
class Beam:
    """A continuation: its context, its own tokens, their log-probability in all."""

    context: cadenza.Context
    tokens: list[int]
    log_probability: float
    ended: bool = False


@dataclass(frozen=True)
class Step:
    """A beam and what may come next; nothing where the beam has ended."""

    beam: Beam
    tokens: tuple[int, ...] = ()
    log_probability: float = 0.0

    def score(self, length_penalty: float) -> float:
        length = max(1, len(self.beam.tokens) + len(self.tokens))
        return float((self.beam.log_probability + self.log_probability) / length**length_penalty)


def gone(steps: list[Step], stop_tokens: frozenset[int]) -> list[Beam]:
    """The beams after these steps. The last step from a beam takes its context over, those before it fork it."""
    left = Counter(step.beam for step in steps)
    beams = []
    for step in steps:
        beam = step.beam
        left[beam] -= 1
        if not step.tokens:
            beams.append(beam)
            continue
        context = beam.context.fork() if left[beam] else beam.context
        context.fill(step.tokens)
        total = beam.log_probability + step.log_probability
        beams.append(Beam(context, [*beam.tokens, *step.tokens], total, step.tokens[0] in stop_tokens))
    return beams


async def search(start: cadenza.Context, width: int, max_tokens: int, length_penalty: float) -> list[Beam]:
    """The best continuations of `start`, best first. It is one of them then, or closed."""
    stop_tokens = cadenza.model.facts().stop_tokens
    kept = [Beam(start, [], 0.0)]
    for _ in range(max_tokens):
        open_beams = [beam for beam in kept if not beam.ended]
        if not open_beams:
            break
        tops = await asyncio.gather(*(beam.context.top(width) for beam in open_beams))
        steps = [Step(beam) for beam in kept if beam.ended]
        for beam, top in zip(open_beams, tops, strict=True):
            steps += [Step(beam, (token,), likely)
                      for token, likely in zip(top.tokens, top.log_probabilities, strict=True)]  # fmt: skip
        best = sorted(steps, key=lambda step: step.score(length_penalty), reverse=True)[:width]
        for beam in {*kept} - {step.beam for step in best}:
            beam.context.close()
        kept = gone(best, stop_tokens)
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
            print(f"{Step(beam).score(penalty):8.3f}  {cadenza.model.detokenize(beam.tokens)}")
