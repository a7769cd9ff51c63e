"""A ReAct agent: the model says which tool it wants, this program runs it and tells the model what came out.

    cadenza run inferlets/react.py --question "What is 17 times 23?"

Arguments: `question`. `system`, how to behave (none). `max_steps`, how many calls at most (8). `max_tokens` of one step
(256). Prints each call with its result, and last the answer.

The tools are functions of this file, called in the sandbox beside the model: no message leaves the machine between a
call and what the model says next, and nothing that it has read is computed twice. Source: Yao et al., "ReAct", 2022.
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
    """The time in a city as hours and minutes, summer time left aside."""
    offsets = {"london": 0, "paris": 1, "berlin": 1, "cairo": 2, "tokyo": 9, "new york": -5}
    if city.strip().lower() not in offsets:
        raise ValueError("unknown city")
    return time.strftime("%H:%M", time.gmtime(time.time() + 3600 * offsets[city.strip().lower()]))


async def act(context: cadenza.Context, tools: cadenza.Tools, max_steps: int = 8, max_tokens: int = 256) -> str:
    """Lets the model go on until it answers in place of calling a tool; answers what it said.

    Raises RuntimeError when it still calls tools after `max_steps`.
    """
    for _ in range(max_steps):
        said = await context.generate(max_tokens).text()
        call = tools.find(said)
        if call is None:
            return said
        result = await tools.run(call)
        print(f"{call.name}({call.text or dict(call.named)}) = {result}")
        context.tool(result)
    raise RuntimeError(f"the model still wants tools after {max_steps} calls")


async def main(args: cadenza.Arguments) -> str:
    async with cadenza.Context() as context:
        if "system" in args:
            context.system(args.system)
        context.user(args.question)
        return await act(context, tools, args.get("max_steps", 8), args.get("max_tokens", 256))
