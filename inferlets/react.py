"""An agent that reasons and acts: the model answers or calls a tool; the tool runs here, in the program's own code, its
result goes into the context, and the model goes on from where it stood. (ReAct: Yao et al. 2022, arXiv 2210.03629.)

    cadenza run inferlets/react.py --question "What is 48 times 37?"

question: the task. max_steps: calls at most (8). max_tokens: of one step (120). system: how to behave.
Copy it and put your own functions under `@tools.add`.
"""

import time

import cadenza

tools = cadenza.Tools()


@tools.add
def calculator(expression: str) -> str:
    """The value of an arithmetic expression."""
    return cadenza.arithmetic.evaluate(expression)


@tools.add
def clock(city: str) -> str:
    """The time in UTC, wherever the city is."""
    return time.strftime("%H:%M", time.gmtime())


async def main(args: cadenza.Arguments) -> str:
    async with cadenza.Context() as context:
        if args.get("system"):
            context.system(args.system)
        context.user(args.question)
        for _ in range(args.get("max_steps", 8)):
            said = await context.generate(args.get("max_tokens", 120)).text()
            call = tools.find(said)
            if call is None:
                return said
            result = await tools.run(call)
            print(f"[{call.name}({call.text or dict(call.named)}) → {result}]")
            context.tool(result)
    raise SystemExit(f"no answer after {args.get('max_steps', 8)} calls")
