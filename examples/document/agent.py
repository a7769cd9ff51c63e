"""Questions about a text that the model has never seen. The text is computed once; every question is a fork of it."""

import asyncio

import cadenza

DOCUMENT = "Mara lives in Oslo. Mara keeps a blue kite. Ivo lives in Lima. Ivo keeps a red drum."
QUESTIONS = ["Where does Mara live?", "Where does Ivo live?", "What does Ivo keep?"]


async def main(args: cadenza.Arguments) -> None:
    questions = [args.question] if args.get("question") else QUESTIONS
    async with cadenza.Context() as document:
        document.system(args.get("document", DOCUMENT))
        await document.prefill()
        answers = await asyncio.gather(*(ask(document, question) for question in questions))
    for question, answer in zip(questions, answers, strict=True):
        print(f"{question} {answer}")


async def ask(document: cadenza.Context, question: str) -> str:
    async with document.fork() as context:
        context.user(question)
        return await context.generate(max_tokens=40).text()
