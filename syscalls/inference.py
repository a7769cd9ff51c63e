"""Interface `inference`: one forward pass, or a run of steps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from cadenza.kernel.device.batch import PROBE_ENTROPY, PROBE_TOP, Float32, Int32
from cadenza.kernel.kernel import Kernel
from cadenza.kernel.passes import Pass, ProbeAnswer
from cadenza.kernel.process import Process
from cadenza.kernel.progress import Progress
from cadenza.kernel.runs import Run
from cadenza.kernel.verification import Verdict, Verification
from cadenza.kernel.wasm.seams import Case, blocking, quick
from cadenza.syscalls.arguments import (
    PROBE_KINDS,
    fetch_files,
    fetch_grammar,
    fetch_int32,
    fetch_mask,
    fetch_probe,
    fetch_sampler,
    fetch_states,
    fetch_visible,
)
from cadenza.syscalls.suspension import NextToken, settled, take_next

PROBE_NAMES = {kind: name for name, kind in PROBE_KINDS.items()}


@dataclass(frozen=True, slots=True)
class TopTokens:
    """WIT's `top-tokens`: `tail` is the probability of all the others."""

    tokens: Int32
    log_probabilities: Float32
    tail: float


@dataclass(frozen=True, slots=True)
class Completion:
    """WIT's `pass-completion`."""

    tokens: list[int]
    probes: list[Case]
    computed_tokens: int
    reused_tokens: int
    scores: list[float]


class InferenceCalls:
    def __init__(self, kernel: Kernel) -> None:
        self._inference = kernel.inference
        self._adapters = kernel.adapters

    def forward(self, process: Process, request: Any) -> int:
        process.handles.ensure_room()
        file, reads = fetch_files(process, request)
        return process.handles.add(self._inference.forward(
            process, file, reads, fetch_int32(request.tokens, "tokens"), fetch_int32(request.positions, "positions"),
            visible=fetch_visible(request.visible),
            mask=fetch_mask(self._inference, request.mask),
            samples=[(s.row, fetch_sampler(s.sampler)) for s in request.samples],
            probes=[(p.row, fetch_probe(p.probe)) for p in request.probes],
            adapter=self._adapters.digest(process.owner, request.adapter),
            scores_from=request.scores_from,
            grammar=fetch_grammar(process, request.grammar),
        ))

    @quick
    def take_pass(self, process: Process, handle: int) -> Completion:
        done = process.handles.get(handle, Pass).take()
        process.tokens += len(done.tokens)
        return Completion(done.tokens, [answer_probe(p) for p in done.probes], done.computed_tokens, done.reused_tokens,
                          done.scores)

    def decode(self, process: Process, request: Any) -> int:
        process.handles.ensure_room()
        file, reads = fetch_files(process, request)
        return process.handles.add(self._inference.decode(
            process, file, reads, fetch_int32(request.tokens, "tokens"), fetch_int32(request.positions, "positions"),
            sampler=fetch_sampler(request.sampler),
            mask=fetch_mask(self._inference, request.mask),
            max_tokens=request.max_tokens,
            stop_tokens=frozenset(request.stop_tokens.tolist()),
            stop_sequences=tuple(tuple(s.tolist()) for s in request.stop_sequences),
            deliver_every=request.deliver_every,
            states=fetch_states(self._inference, request.states),
            adapter=self._adapters.digest(process.owner, request.adapter),
            grammar=fetch_grammar(process, request.grammar),
        ))

    @quick
    def take_tokens(self, process: Process, handle: int) -> Progress:
        progress = process.handles.get(handle, Run).take()
        process.tokens += len(progress.tokens)
        return progress

    @blocking
    def next_token(self, process: Process, handle: int) -> int | NextToken:
        """The hottest call of all. Has no room for an error: `take-tokens` answers that."""
        run = process.handles.find(handle)
        if type(run) is not Run:
            return -1
        return take_next(process, run) if run.ready else NextToken(process, run)

    def interject(self, process: Process, handle: int, tokens: Any) -> None:
        self._inference.interject(process.handles.get(handle, Run), fetch_int32(tokens, "tokens"))

    def stop(self, process: Process, handle: int) -> Any:
        run = process.handles.get(handle, Run)
        run.stop()
        return settled(run)

    def verify(self, process: Process, request: Any) -> int:
        process.handles.ensure_room()
        file, reads = fetch_files(process, request)
        tokens = np.concatenate([[request.token], request.tokens])
        return process.handles.add(self._inference.verify(
            process, file, reads, fetch_int32(tokens, "tokens"), fetch_int32(request.parents, "parents").tolist(),
            sampler=fetch_sampler(request.sampler),
            mask=fetch_mask(self._inference, request.mask),
            adapter=self._adapters.digest(process.owner, request.adapter),
            grammar=fetch_grammar(process, request.grammar),
        ))

    @quick
    def take_verified(self, process: Process, handle: int) -> Verdict:
        verdict = process.handles.get(handle, Verification).take()
        process.tokens += len(verdict.tokens)
        return verdict


def answer_probe(answer: ProbeAnswer) -> Case:
    name = PROBE_NAMES[answer.kind]
    if answer.kind == PROBE_TOP:
        return Case(name, TopTokens(answer.ids, answer.values[:-1], float(answer.values[-1])))
    return Case(name, float(answer.values[0]) if answer.kind == PROBE_ENTROPY else answer.values)
