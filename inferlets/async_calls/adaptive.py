"""The agent that chooses: asynchronous where that is faster, synchronous-parallel where it is not.

Asynchronous calls cost tokens (names, traps), and win the time in which functions run while the model speaks. So what
is faster depends on execution over generation, and on how many calls can be said at once, and after one another. All
that is in a `Profile`, learnt from the tasks done so far; before each task both manners are played through with it and
with what the offered tools are expected to take, and the faster one is chosen.
"""

from __future__ import annotations

from cadenza import Context, model

from .asynchronous import Asynchronous
from .outcome import Agent, Outcome
from .profile import Profile
from .synchronous import Synchronous
from .toolbox import Toolbox

RELEARN_TASKS = 32     # one in so many is done in parallel whatever is foreseen: only turns show the shape of tasks


class Adaptive:
    """One of two agents for each task. `manner` is that of the one for the next task."""

    def __init__(self, tools: Toolbox, asynchronous: Asynchronous, parallel: Synchronous,
                 profile: Profile | None = None) -> None:  # fmt: skip
        self.profile = profile or Profile()
        self._tools = tools
        self._asynchronous, self._parallel = asynchronous, parallel

    @property
    def chosen(self) -> Agent:
        profile = self.profile
        if profile.tasks % RELEARN_TASKS == 0 and profile.tasks:
            return self._parallel
        expected = [tool.seconds for tool in self._tools if tool.seconds is not None]
        return self._asynchronous if profile.asynchronous_is_faster(expected) else self._parallel

    @property
    def manner(self) -> str:
        return self.chosen.manner

    async def act(self, context: Context) -> Outcome:
        agent = self.chosen
        outcome = await agent.act(context)
        tokens = [len(model.tokenize(job.code)) for job in outcome.jobs]
        self.profile.learn(outcome, tokens, parallel=agent is self._parallel)
        return outcome
