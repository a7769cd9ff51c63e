"""Continues a text.

    cadenza run inferlets/completion.py --prompt "Once upon a time"

Arguments: `prompt`, the text. `max_tokens` (256). `stop`, a text or a list of texts that end it (none).
`temperature` (0: the likeliest token each time), `top_k`, `top_p`, `min_p` (off), `seed` (0).
`adapter`, the name of one of yours (none).
"""

import cadenza


async def main(args: cadenza.Arguments) -> None:
    sampler = cadenza.Sampler(
        temperature=args.get("temperature", 0.0),
        top_k=args.get("top_k", 0),
        top_p=args.get("top_p", 1.0),
        min_p=args.get("min_p", 0.0),
        seed=args.get("seed", 0),
    )
    async with cadenza.Context(adapter=args.get("adapter", None)) as context:
        context.fill(args.prompt)
        answer = context.generate(args.get("max_tokens", 256), sampler=sampler, stop=args.get("stop", ()))
        async for piece in answer:
            print(piece, end="", flush=True)
    print()
