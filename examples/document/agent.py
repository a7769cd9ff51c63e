"""Answers questions about a document. The document is read once; each question goes on in a fork of its context."""

import asyncio

import cadenza

DOCUMENT = "Vera lives in Lisbon. Vera keeps a red kite."
QUESTIONS = ("Where does Vera live?", "What does Vera keep?", "Where does Bruno live?")


async def answer(document: cadenza.Context, question: str) -> str:
    async with document.fork() as context:
        context.user(question)
        return await context.generate(max_tokens=60).text()


async def main(args: cadenza.Arguments) -> None:
    questions = [args.question] if "question" in args else QUESTIONS
    async with cadenza.Context() as document:
        document.system(args.get("document", DOCUMENT))
        await document.prefill()
        answers = await asyncio.gather(*(answer(document, question) for question in questions))
    for question, said in zip(questions, answers, strict=True):
        print(f"{question} {said}")
