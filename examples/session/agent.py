"""A session that outlives the daemon: each run adds a turn to the same context, which is a file on disk."""

import cadenza

TURNS = ["Vera lives in Lisbon. Vera keeps a red kite. What does Vera keep?", "Where does Vera live?"]


async def main(args: cadenza.Arguments) -> None:
    path, name = args.get("session", "sessions/vera"), ""
    try:
        context = cadenza.Context.open(path)
    except cadenza.NotFound:
        context, name = cadenza.Context(), path
    held = len(context.file)
    turn = args.get("say", TURNS[1 if held else 0])
    context.user(turn)
    generation = context.generate(max_tokens=40)
    answer = await generation.text()
    new = generation.computed_tokens + generation.reused_tokens
    print(f"> {turn}\n{answer}  ({held} tokens were there already, {new} were new)")
    await context.save(name)
