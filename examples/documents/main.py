"""Answers questions about documents, each of which is computed once and kept as a file.

For a question it takes the documents that share a word with it, and lets the model answer over those. If the model is
not sure, it takes all documents, and computes them anew, so that they see each other.
"""

import asyncio
import re

from prompt_modules import Import, Policy, Prompt, parse_schema
from prompt_modules.library import Library

import cadenza

SCHEMA = """
<schema name="village">
  <user>
    <module name="people">Mara lives in Oslo. Mara works as a baker. Tara is a friend of Ivo. </module>
    <module name="houses">The red kite is in the attic. The old clock costs 120 coins. </module>
    <module name="things">Tara keeps a blue drum. Vera keeps a green lamp. </module>
    <module name="meals">Rosa likes plum soup. Vera likes apple pie. </module>
  </user>
</schema>
"""
QUESTIONS = (
    "What does Mara do?",
    "Where is the red kite?",
    "What does Vera keep?",
    "What does the friend of Ivo keep?",
)
FIRST = Policy("epic", recompute=8, packed=True, rooted=True)
SECOND = Policy("full", packed=True)
UNSURE = -1.0     # log-probability of the least likely token of an answer
COMMON = {"what", "where", "who", "how", "old", "do", "does", "is", "the", "in", "a", "of", "as"}


def words(text: str) -> set[str]:
    return set(re.findall(r"\w+", text.lower())) - COMMON


def chosen(library: Library, question: str) -> list[str]:
    """The documents that share a word with the question, in their order; all of them when none does."""
    texts = {path: placed.text for path, placed in library.layout.modules.items() if path}
    return [path for path, text in texts.items() if words(question) & words(text)] or [*texts]


async def said(library: Library, documents: list[str], question: str, policy: Policy) -> tuple[str, float, str]:
    """The answer over those documents, how sure the model is of it, and what it took."""
    prompt = Prompt("village", [*map(Import, documents), question])
    async with await library.context(prompt, policy) as context:
        await context.prefill()
        async with context.fork() as judge:
            generation = context.generate(max_tokens=60)
            answer = await generation.text()
            scores = await judge.score(generation.tokens)
    report = context.report
    took = f"{', '.join(documents)}: {report.reused_tokens} tokens read, {report.computed_tokens} computed"
    return answer, min(scores), took


async def answer(library: Library, question: str) -> list[str]:
    found, score, took = await said(library, chosen(library, question), question, FIRST)
    lines = [f"{question} {found}  ({took})"]
    if score < UNSURE:
        everything = [path for path in library.layout.modules if path]
        found, _, took = await said(library, everything, question, SECOND)
        lines.append(f"    not sure. Once more: {found}  ({took})")
    return lines


async def main(args: cadenza.Arguments) -> None:
    questions = [args.question] if "question" in args else QUESTIONS
    with Library(parse_schema(args.get("schema", SCHEMA)), "documents", durable=args.get("durable", False)) as library:
        computed = await library.encode(FIRST)
        print(f"{len(library.layout.modules) - 1} documents, {computed} tokens computed for their files")
        for lines in await asyncio.gather(*(answer(library, question) for question in questions)):
            print("\n".join(lines))
