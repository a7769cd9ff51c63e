"""An agent that calculates: the model writes the expression, the program works it out."""

import cadenza

tools = cadenza.Tools()


@tools.add
def calculator(expression: str) -> str:
    """The value of an arithmetic expression."""
    return cadenza.arithmetic.evaluate(expression)


async def main(args: cadenza.Arguments) -> str:
    async with cadenza.Context() as context:
        context.user(args.get("question", "What is 48 times 37?"))
        while True:
            said = await context.generate(max_tokens=100).text()
            call = tools.find(said)
            if call is None:
                return said
            result = await tools.run(call)
            print(f"{call.name}({call.text}) = {result}")
            context.tool(result)
