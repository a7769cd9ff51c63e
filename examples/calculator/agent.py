"""The model can't calculate, and knows it: it calls a tool, and this program runs it."""

import cadenza

tools = cadenza.Tools()


@tools.add
def calculator(expression: str) -> str:
    """The value of an arithmetic expression."""
    return cadenza.arithmetic.evaluate(expression)


async def main(args: cadenza.Arguments) -> None:
    async with cadenza.Context() as context:
        context.user(args.get("question", "What is 48 times 37?"))
        while True:
            said = await context.generate(max_tokens=100).text()
            call = tools.find(said)
            if call is None:
                print(said)
                return
            result = await tools.run(call)
            print(f"calls {call.name}({call.text}), which answers {result}")
            context.tool(result)
