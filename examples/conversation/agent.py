"""Two turns: the second question is about what was said in the first. Only what is new is computed."""

import cadenza

TURNS = ["Vera lives in Lisbon. Vera keeps a red kite. What does Vera keep?", "Where does Vera live?"]


async def main(args: cadenza.Arguments) -> None:
    async with cadenza.Context() as context:
        for turn in args.get("turns", TURNS):
            context.user(turn)
            held = context.file.status().tokens
            answer = await context.generate(max_tokens=40).text()
            print(f"> {turn}\n{answer}  ({held} tokens were there already)")
