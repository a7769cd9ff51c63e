"""Passes take a nanosecond a token, runs give one token a nanosecond; both as if computed ahead."""

from __future__ import annotations

from dataclasses import make_dataclass
from enum import Enum
from itertools import pairwise
from typing import Any

from wit_world.imports import events
from wit_world.imports.types import refuse
from wit_world.toy import next_token as following
from wit_world.toy import toy


def record(name: str, fields: str) -> Any:
    return make_dataclass(name, fields.split())


VisibleRange = record("VisibleRange", "row first count")
Sampler = record("Sampler", "temperature top_k top_p min_p seed bias penalties")
Bias, Penalties = record("Bias", "token value"), record("Penalties", "repetition frequency presence window")
LogitMask = record("LogitMask", "tokens allowed")
SampleRequest = record("SampleRequest", "row sampler")
ProbeRequest = record("ProbeRequest", "row probe")
Pass = record("Pass", "file reads tokens positions visible mask samples probes adapter scores_from grammar")
TopTokens = record("TopTokens", "tokens log_probabilities tail")
PassCompletion = record("PassCompletion", "tokens probes computed_tokens reused_tokens scores")
Run = record(
    "Run", "file reads tokens positions mask sampler max_tokens stop_tokens stop_sequences deliver_every states "
    "adapter grammar"
)
Move = record("Move", "token state")
State = record("State", "mask moves otherwise open")
Progress = record("Progress", "tokens finish computed_tokens reused_tokens interjected")
Probe_Top, Probe_LogProbabilities = record("Probe_Top", "value"), record("Probe_LogProbabilities", "value")
Probe_Entropy, Probe_Logits = record("Probe_Entropy", ""), record("Probe_Logits", "")
Probe_Hidden, ProbeAnswer_Hidden = record("Probe_Hidden", ""), record("ProbeAnswer_Hidden", "value")
ProbeAnswer_Top, ProbeAnswer_Logits = record("ProbeAnswer_Top", "value"), record("ProbeAnswer_Logits", "value")
ProbeAnswer_Entropy = record("ProbeAnswer_Entropy", "value")
ProbeAnswer_LogProbabilities = record("ProbeAnswer_LogProbabilities", "value")
Finish = Enum("Finish", "RUNNING STOP_TOKEN STOP_SEQUENCE LENGTH CONTEXT_FULL STOPPED GRAMMAR_END", start=0)
Draft = record("Draft", "file reads token tokens parents sampler mask adapter grammar")
Verdict = record("Verdict", "tokens accepted computed_tokens finish")


def begin(file: int, tokens: list[int]) -> list[int]:
    content: list[int] = toy.get(toy.files, file)
    if file in toy.busy:
        refuse("BUSY", f"file {file} is being written")
    if not tokens:
        refuse("INVALID", "a pass has no tokens")
    toy.busy.add(file)
    toy.computed += len(tokens)
    return content


def forward(pass_: Any) -> int:
    content = begin(pass_.file, pass_.tokens)
    answers = [answer(request.probe, pass_.tokens[request.row]) for request in pass_.probes]
    sampled = [following(pass_.tokens[request.row], 0) for request in pass_.samples]
    scored = [] if pass_.scores_from is None else pass_.tokens[pass_.scores_from :]
    scores = [-0.1 if after == following(token, 0) else -3.0 for token, after in pairwise(scored)]
    done = PassCompletion(sampled, answers, len(pass_.tokens), 0, scores)
    held = {"file": pass_.file, "content": content, "tokens": pass_.tokens, "done": done}
    return toy.handle(held, toy.now + len(pass_.tokens))


def answer(probe: Any, token: int) -> Any:
    likely = following(token, 0)
    if isinstance(probe, Probe_Top):
        return ProbeAnswer_Top(TopTokens([likely], [-0.1], 0.1))
    if isinstance(probe, Probe_Hidden):
        return ProbeAnswer_Hidden([float(token), 4.0])
    if isinstance(probe, Probe_LogProbabilities):
        return ProbeAnswer_LogProbabilities([-0.1 if wanted == likely else -3.0 for wanted in probe.value])
    return ProbeAnswer_Entropy(0.5) if isinstance(probe, Probe_Entropy) else ProbeAnswer_Logits([0.0] * 263)


def take_pass(pass_: int) -> Any:
    held = toy.get(toy.held, pass_)
    if not toy.is_ready(pass_):
        refuse("NOT_READY", "wait first")
    if held["file"] in toy.busy:
        held["content"] += held["tokens"]
        toy.busy.discard(held["file"])
    return held["done"]


def decode(run: Any) -> int:
    begin(run.file, run.tokens)
    script = toy.script.popleft() if toy.script else None
    said: list[int] = []
    finish = Finish.LENGTH
    while len(said) < run.max_tokens:
        last = said[-1] if said else run.tokens[-1]
        seed = run.sampler.seed if run.sampler.temperature else 0
        said.append(following(last, seed) if script is None else script[len(said)])
        if said[-1] in run.stop_tokens:
            finish = Finish.STOP_TOKEN
            break
    held = {"file": run.file, "run": run, "said": said, "finish": finish, "taken": 0, "began": toy.now}
    return toy.handle(held, toy.now + 1)


def take_tokens(run: int) -> Any:
    held = toy.get(toy.held, run)
    come = min(toy.now - held["began"], len(held["said"]))
    tokens = held["said"][held["taken"] : come]
    held["taken"] = come
    if come < len(held["said"]):
        toy.ready_at[run] = toy.now + held["run"].deliver_every
        return Progress(tokens, Finish.RUNNING, len(held["run"].tokens), 0, [])
    settle(held)
    return Progress(tokens, held["finish"], len(held["run"].tokens), 0, [])


def next_token(run: int) -> int:
    events.wait([run], events.Until.ANY, None, [])
    held = toy.get(toy.held, run)
    if toy.now - held["began"] >= len(held["said"]) or toy.now - held["began"] - held["taken"] != 1:
        return -1
    return int(take_tokens(run).tokens[0])


def settle(held: dict[str, Any]) -> None:
    if held["file"] in toy.busy and held["taken"]:
        toy.files[held["file"]] += held["run"].tokens + held["said"][: held["taken"] - 1]
    toy.busy.discard(held["file"])


def stop(run: int) -> None:
    settle(toy.get(toy.held, run))


def interject(run: int, tokens: list[int]) -> None:
    """The toy's runs are as if computed ahead: what is put in comes after all of it."""
    held = toy.get(toy.held, run)
    held["said"] += tokens


def verify(draft: Any) -> int:
    """The toy goes on by the last token, so a draft is accepted as far as it does."""
    content = begin(draft.file, [draft.token])
    said, at = [following(draft.token, 0)], 0
    for number, (token, parent) in enumerate(zip(draft.tokens, draft.parents, strict=True), 1):
        if parent == at and token == said[-1]:
            at = number
            said.append(following(token, 0))
    verdict = Verdict(said, len(said) - 1, 1 + len(draft.tokens), Finish.RUNNING)
    held = {"file": draft.file, "content": content, "tokens": [draft.token, *said[:-1]], "done": verdict}
    return toy.handle(held, toy.now + 1)


take_verified = take_pass
