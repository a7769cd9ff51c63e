"""A chat of many turns: each message of the client is answered.

    cadenza run inferlets/chat.py --system "Be brief."          # then type lines; an empty one ends it

Arguments: `system`, how to behave (none). `max_tokens` of one answer (512). `temperature` (0), `seed` (0). `first`,
what the user says first (else the first message is awaited). `adapter`, the name of one of yours (none).

Prints each answer as it comes, a line each. An empty message ends the chat; so do the
signals `terminate` and `interrupt`. What was said before stays computed: a turn costs its own tokens only.
"""

import asyncio
import contextlib

import cadenza


async def answer(context: cadenza.Context, said: str, args: cadenza.Arguments) -> None:
    sampler = cadenza.Sampler(args.get("temperature", 0.0), seed=args.get("seed", 0))
    context.user(said)
    async for piece in context.generate(args.get("max_tokens", 512), sampler=sampler):
        print(piece, end="", flush=True)
    print()


async def converse(args: cadenza.Arguments) -> None:
    async with cadenza.Context(adapter=args.get("adapter", None)) as context:
        if "system" in args:
            context.system(args.system)
        if "first" in args:
            await answer(context, args.first, args)
        async for said in cadenza.messages():
            if not said.strip():
                return
            await answer(context, said, args)


async def main(args: cadenza.Arguments) -> None:
    chat = asyncio.ensure_future(converse(args))
    ended = asyncio.ensure_future(until_terminated())
    await asyncio.wait([chat, ended], return_when=asyncio.FIRST_COMPLETED)
    if chat.done():
        await chat
    chat.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await chat


async def until_terminated() -> None:
    async for signal in cadenza.signals():
        if signal in ("terminate", "interrupt"):
            return
