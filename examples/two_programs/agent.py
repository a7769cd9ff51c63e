"""Two programs that talk by messages: one asks, the other, its child, answers from a model context of its own."""

import json

import cadenza

QUESTIONS = ("Who are you?", "What can you do?", "Thank you.")


async def ask(args: cadenza.Arguments) -> None:
    """Publishes each question and waits for its answer."""
    name = f"two-programs-{cadenza.pid()}"
    with cadenza.subscribe(f"{name}-answers") as answers:
        child = cadenza.spawn(args.get("image", "two_programs"), {"role": "answer", "name": name})
        await answers.receive()                             # the other is there: nothing is published to nobody
        for question in QUESTIONS:
            cadenza.publish(f"{name}-questions", json.dumps({"question": question}))
            print(f"{question} {await answers.receive()}")
        cadenza.publish(f"{name}-questions", json.dumps({"end": True}))
        status = await child.wait()
    print(f"the other {status.ending}")


async def answer(name: str) -> None:
    """Answers what is published until it is told to end."""
    async with cadenza.Context() as context:
        with cadenza.subscribe(f"{name}-questions") as questions:
            cadenza.publish(f"{name}-answers", "ready")
            async for message in questions:
                asked = json.loads(message)
                if asked.get("end"):
                    return
                context.user(asked["question"])
                cadenza.publish(f"{name}-answers", await context.generate(max_tokens=60).text())


async def main(args: cadenza.Arguments) -> None:
    if args.get("role") == "answer":
        await answer(args.name)
    else:
        await ask(args)
