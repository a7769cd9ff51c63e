"""Three tasks at once, each in a fork of one context, one of them stopped early; ordinary asyncio throughout."""

import asyncio

import cadenza

WORDS = "cloud, apple, river"
TASKS = (f"Repeat: {WORDS}.", f"Reverse: {WORDS}.", "Hello.")


async def work(start: cadenza.Context, task: str) -> str:
    async with start.fork() as context:
        context.user(task)
        return await context.generate(max_tokens=60).text()


async def first_words(start: cadenza.Context, task: str, count: int) -> str:
    """Leaves the loop after `count` pieces: the rest is never said, nor does it stay in the context."""
    async with start.fork() as context:
        context.user(task)
        pieces: list[str] = []
        async for piece in context.generate(max_tokens=60):
            pieces.append(piece)
            if len(pieces) == count:
                break
        return "".join(pieces)


async def main(args: cadenza.Arguments) -> None:
    async with cadenza.Context() as start, asyncio.timeout(60):
        start.system("Answer in one sentence.")
        await start.prefill()
        answers = await asyncio.gather(*(work(start, task) for task in TASKS), first_words(start, "Who are you?", 2))
    for task, said in zip((*TASKS, "Who are you?"), answers, strict=True):
        print(f"{task} {said}")
