"""Two programs of one user: one asks, the other, its child, answers by calling a tool. They talk through queues."""

import json

import cadenza

QUESTIONS = ["What is 12 times 12?", "What is 100 minus 58?"]


async def main(args: cadenza.Arguments) -> None:
    if args.get("role") == "worker":
        await work()
        return
    child = cadenza.spawn(args.get("image", "two_programs"), {"role": "worker"})
    for question in QUESTIONS:
        cadenza.push("questions", question)
    cadenza.push("questions", "")
    answers = cadenza.pull("answers")
    for _ in QUESTIONS:
        answer = json.loads(await answers.receive())
        print(f"{answer['question']} {answer['answer']}")
    status = await child.wait()
    print(f"the worker has {status.ending}")


async def work() -> None:
    questions = cadenza.pull("questions")
    while question := await questions.receive():
        cadenza.push("answers", json.dumps({"question": question, "answer": await answer(question)}))


async def answer(question: str) -> str:
    async with cadenza.Context() as context:
        context.user(question)
        said = await context.generate(max_tokens=60).text()
        call = cadenza.Tools().find(said)
        if call is not None:
            context.tool(cadenza.arithmetic.evaluate(call.text))
            said = await context.generate(max_tokens=60).text()
        return said
