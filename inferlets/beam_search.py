"""Beam search: the continuation that is likeliest as a whole, among those that `width` beams come across.

    cadenza run inferlets/beam_search.py --question "What is 12 plus 30?" --width 4

question: what to answer. width: beams kept (4). max_tokens: of an answer (60). length_penalty: the total is divided by
length to this power (1.0; Wu et al. 2016, arXiv 1609.08144, section 7). A beam is a fork: copy-on-write, so beams share
the pages of all that they have in common.
"""

import asyncio
from dataclasses import dataclass

import cadenza


@dataclass
class Beam:
    context: cadenza.Context
    tokens: list[int]
    total: float                                     # log-probability of its tokens
    ended: bool = False

    def score(self, penalty: float) -> float:
        return self.total / max(1, len(self.tokens)) ** penalty


async def main(args: cadenza.Arguments) -> str:
    context = cadenza.Context()
    context.user(args.question)
    context.fill("")                                 # the answer begins here
    width, penalty = args.get("width", 4), args.get("length_penalty", 1.0)
    beams = [Beam(context, [], 0.0)]
    for _ in range(args.get("max_tokens", 60)):
        if all(beam.ended for beam in beams):
            break
        beams = keep_best(await grow(beams, width), width, penalty)
    best = max(beams, key=lambda beam: beam.score(penalty))
    stops = cadenza.model.facts().stop_tokens
    return cadenza.model.detokenize([token for token in best.tokens if token not in stops], special=True)


async def grow(beams: list[Beam], width: int) -> list[tuple[Beam, int | None, float]]:
    """(beam, its next token, log-probability with it): for a beam that has ended, itself."""
    open_beams = [beam for beam in beams if not beam.ended]
    tops = await asyncio.gather(*(beam.context.top(width) for beam in open_beams))
    grown: list[tuple[Beam, int | None, float]] = [(beam, None, beam.total) for beam in beams if beam.ended]
    for beam, top in zip(open_beams, tops, strict=True):
        for token, log_probability in zip(top.tokens, top.log_probabilities, strict=True):
            grown.append((beam, token, beam.total + log_probability))
    return grown


def keep_best(grown: list[tuple[Beam, int | None, float]], width: int, penalty: float) -> list[Beam]:
    def score(candidate: tuple[Beam, int | None, float]) -> float:
        beam, token, total = candidate
        return total / max(1, len(beam.tokens) + (token is not None)) ** penalty

    kept: list[Beam] = []
    for beam, token, total in sorted(grown, key=score, reverse=True)[:width]:
        if token is None:
            kept.append(beam)
            continue
        fork = beam.context.fork()
        fork.fill([token])
        kept.append(Beam(fork, [*beam.tokens, token], total, token in cadenza.model.facts().stop_tokens))
    for beam in {id(beam): beam for beam, _, _ in grown}.values():
        if beam not in kept:
            beam.context.close()
    return kept
