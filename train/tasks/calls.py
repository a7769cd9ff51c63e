"""Function calls in three manners: asynchronous (CML), one by one, and all at once as far as they can be.

    asynchronous   <|assistant|>[CALL]hotel[HEAD]find_hotel(day=3)[END][TRAP][END][INTR]hotel[HEAD]Talo[END]The hotel
                   is Talo.<|end|>
    one by one     <|assistant|><|call|>find_hotel(day=3)<|end|><|tool|>Talo<|end|><|assistant|>The hotel is …<|end|>
    all at once    <|assistant|><|call|>find_hotel(day=3)<|call|>count_boat(lane=2)<|end|>
                   <|tool|>Talo<|end|><|tool|>4<|end|><|assistant|>The hotel is Talo. The boat is 4.<|end|>

The system turn says which, and names the functions. What is asked and what is answered are the same.
"""

from __future__ import annotations

from dataclasses import dataclass

from train.agent import told
from train.dialogue import CALL, Dialogue, Turn, assistant, result, system, user
from train.functions import Chain
from train.jobs import Job, Plan, Reply
from train.runtime import asynchronous_turn
from train.world import World

INTERRUPTING = "Functions that interrupt"
ONE_BY_ONE = "Functions one by one"
ALL_AT_ONCE = "Functions all at once"


def opening(job: Job, manner: str) -> list[Turn]:
    return [system(job.declared(manner)), user(job.asked)]


@dataclass(frozen=True)
class Calling:
    """Jobs of one plan, in one manner."""

    kind: str
    plan: Plan
    manner: str = INTERRUPTING

    def dialogue(self, world: World) -> Dialogue:
        job = self.plan.job(world)
        synchronous = {ONE_BY_ONE: one_by_one, ALL_AT_ONCE: all_at_once}.get(self.manner)
        turns = synchronous(job) if synchronous else [asynchronous_turn(job, world.pieces)]
        return Dialogue(self.kind, (*opening(job, self.manner), *turns))


def one_by_one(job: Job) -> list[Turn]:
    """Each call is a turn, its result the next; the results of the chains are told at the end."""
    turns: list[Turn] = []
    answers: list[str] = []
    for chain in job.chains:
        next_step: int | None = 0
        value = ""
        while next_step is not None:
            step = next_step
            code = chain.requests[step].code(value)
            value = reply_of(job, chain, step).value
            turns += [assistant(CALL + code), result(value)]
            next_step = following(job, chain, step)
        answers.append(answer(job, chain, step))
    return [*turns, assistant(" ".join(answers))]


def all_at_once(job: Job) -> list[Turn]:
    """All calls that can be made are one turn; their results follow in the same order."""
    turns: list[Turn] = []
    answers: dict[Chain, str] = {}
    ready = [(chain, 0, "") for chain in job.chains]
    while ready:
        turns.append(assistant("".join(CALL + chain.requests[step].code(value) for chain, step, value in ready)))
        turns += [result(reply_of(job, chain, step).value) for chain, step, _ in ready]
        answers |= {chain: answer(job, chain, step) for chain, step, _ in ready}
        ends = [(chain, following(job, chain, step), reply_of(job, chain, step).value) for chain, step, _ in ready]
        ready = [(chain, step, value) for chain, step, value in ends if step is not None]
    return [*turns, assistant(" ".join(answers[chain] for chain in job.chains))]


def reply_of(job: Job, chain: Chain, step: int) -> Reply:
    return job.replies[chain.requests[step].function.noun]


def following(job: Job, chain: Chain, step: int) -> int | None:
    """The chain's next step; None when this was the last, or has failed."""
    return None if reply_of(job, chain, step).failed or step + 1 == len(chain.requests) else step + 1


def answer(job: Job, chain: Chain, step: int) -> str:
    return told(chain.requests[step].function.noun, reply_of(job, chain, step))


SINGLE = Plan(chains=(1, 1))
PARALLEL = Plan(chains=(2, 4))
MULTI_STEP = Plan(chains=(1, 3), steps=(1, 3))
INTERRUPTED = Plan(chains=(1, 3), steps=(1, 2), interrupts=(1, 2), most_steps=4, failures=0.1)
MANY_STEPS = Plan(chains=(2, 3), steps=(2, 3))
MANY_INTERRUPTS = Plan(chains=(2, 3), steps=(1, 2), interrupts=(2, 3), most_steps=4, failures=0.1)
