"""A chat of two turns: the second is answered from what was said in the first."""

import cadenza

TURNS = ("Hello, my name is Mara.", "What is my name?")


async def main(args: cadenza.Arguments) -> None:
    async with cadenza.Context() as context:
        for said in args.get("turns", TURNS):
            context.user(said)
            print(f"> {said}")
            async for piece in context.generate(max_tokens=60):
                print(piece, end="", flush=True)
            print()
