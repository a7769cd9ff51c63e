"""Continues a text.

    cadenza run inferlets/completion.py --prompt "Mara lives in" --max_tokens 40 --temperature 0.8 --seed 7

prompt: what to continue. max_tokens: at most so many (64). stop: end before this text. temperature (0: greedy), top_k,
top_p, min_p, seed: how tokens are drawn.
"""

import cadenza


async def main(args: cadenza.Arguments) -> None:
    sampler = cadenza.Sampler(
        temperature=args.get("temperature", 0.0), top_k=args.get("top_k", 0), top_p=args.get("top_p", 1.0),
        min_p=args.get("min_p", 0.0), seed=args.get("seed", 0),
    )
    async with cadenza.Context() as context:
        context.fill(args.prompt)
        async for piece in context.generate(args.get("max_tokens", 64), sampler=sampler, stop=args.get("stop", ())):
            print(piece, end="", flush=True)
    print()
