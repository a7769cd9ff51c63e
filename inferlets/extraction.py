"""A JSON object of a schema, out of a text. For models that have learnt JSON; examples/extraction is for a small one.

    cadenza run inferlets/extraction.py --text "Vera, 41, lives in Rome." --schema '{"type": "object", …}'

Arguments: `text`. `schema`: a JSON schema, as an object. `question`, what to do with the text ("Give …"). `max_tokens`
(1024). What it prints is an object of the schema; the program fails if the answer did not end in time.
"""

import json

import cadenza

QUESTION = "Give what this text says, as a JSON object of the schema that follows."


async def main(args: cadenza.Arguments) -> str:
    grammar = await cadenza.Grammar.json_schema(args.schema).compile()
    async with cadenza.Context() as context:
        context.user(f"{args.get('question', QUESTION)}\n\n{args.text}\n\n{json.dumps(args.schema)}")
        said = await context.generate(args.get("max_tokens", 1024), grammar=grammar).text()
    if not grammar.may_end:
        raise ValueError(f"the answer did not end: {said}")
    return said
