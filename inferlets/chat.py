"""A conversation: every message of the client is answered, and what was said before is not computed again.

    cadenza run inferlets/chat.py --system "You are brief."          # then type lines; an empty one ends it

system: how to behave. question: a first message, if there is one already. max_tokens: of an answer (200).
"""

import cadenza


async def main(args: cadenza.Arguments) -> None:
    async with cadenza.Context() as context:
        if args.get("system"):
            context.system(args.system)
        if args.get("question"):
            await answer(context, args.question, args.get("max_tokens", 200))
        async for message in cadenza.messages():
            if not message.strip():
                break
            await answer(context, message, args.get("max_tokens", 200))


async def answer(context: cadenza.Context, message: str, max_tokens: int) -> None:
    context.user(message)
    async for piece in context.generate(max_tokens):
        print(piece, end="", flush=True)
    print()
