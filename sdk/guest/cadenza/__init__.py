"""Cadenza, as a program sees it: `import cadenza` in an inferlet.

    import cadenza

    async def main(args: cadenza.Arguments) -> None:
        async with cadenza.Context() as context:
            context.user(args.question)
            async for piece in context.generate(max_tokens=200):
                print(piece, end="", flush=True)

Ordinary asyncio works: gather, tasks, timeouts, cancellation, queues. What is not here is in the modules: `model`
(tokens, facts, chat template), `inference` (the bare `forward` and `Run`), `kv` (files), `channel` (messages),
`process` (children, signals), `events` (handles, timers), `trace` (marks), `tools` and `arithmetic` (for agents),
`http` and `remote` (hosts and tools that the manifest names).
"""

from . import arithmetic, channel, errors, events, http, inference, kv, model, process, remote, tools, trace
from .arguments import Arguments
from .channel import Source, messages, publish, pull, push, receive, send, subscribe
from .context import Context
from .decoding import Decoding
from .embedding import embed
from .errors import (
    Busy,
    Cancelled,
    Closed,
    Damaged,
    Denied,
    DeviceLost,
    Error,
    Exists,
    Full,
    Internal,
    Invalid,
    LimitExceeded,
    NoPages,
    NotFound,
    NotReady,
    TooLong,
    Unsupported,
)
from .events import Handle, timer, wait
from .generation import Generation
from .inference import (
    Entropy,
    Hidden,
    Logits,
    LogProbabilities,
    Mask,
    Penalties,
    Run,
    Sampler,
    State,
    Top,
    TopTokens,
    Visible,
    forward,
)
from .kv import File
from .process import Child, ExitStatus, kill, pid, signals, spawn
from .tools import Call, Tools
from .trace import mark

__all__ = [
    "Arguments", "Busy", "Call", "Cancelled", "Child", "Closed", "Context", "Damaged", "Decoding", "Denied",
    "DeviceLost", "Entropy", "Error", "Exists", "ExitStatus", "File", "Full", "Generation", "Handle", "Hidden",
    "Internal", "Invalid", "LimitExceeded", "LogProbabilities", "Logits", "Mask", "NoPages", "NotFound", "NotReady",
    "Penalties", "Run", "Sampler", "Source", "State", "TooLong", "Tools", "Top", "TopTokens", "Unsupported",
    "Visible", "arithmetic", "channel", "embed", "errors", "events", "forward", "http", "inference", "kill", "kv",
    "mark", "messages", "model", "pid", "process", "publish", "pull", "push", "receive", "remote", "send", "signals",
    "spawn", "subscribe", "timer", "tools", "trace", "wait",
]  # fmt: skip
