import asyncio, json, time
import cadenza
from cadenza import model
from cadenza.events import now

async def one(task, args):
    calls = {k: list(v) for k, v in task["calls"].items()}
    async def tool(code):
        seconds, value = calls[code].pop(0)
        await asyncio.sleep(seconds)
        return value
    began = now()
    if args.mode == "asynchronous":
        await asynchronous(task, args, tool)
    else:
        await synchronous(task, args, tool)
    ended = now()
    assert not any(calls.values()), calls
    return ended - began

async def synchronous(task, args, tool):
    context = cadenza.Context()
    context.system(task["system"]); context.user(task["user"])
    while True:
        g = context.generate(max_tokens=2000)
        text = await g.text()
        codes = model.detokenize(g.tokens, special=True).removesuffix("<|end|>").split("<|call|>")[1:]
        if not codes:
            assert text == "Done.", text
            break
        values = await asyncio.gather(*(tool(code) for code in codes))
        if args.resume:
            await asyncio.sleep(args.resume)
        for value in values: context.tool(value)
    context.close()

async def asynchronous(task, args, tool):
    context = cadenza.Context()
    context.system(task["system"]); context.user(task["user"])
    prompt = model.tokenize(model.chat([dict(role="system", content=task["system"]), dict(role="user", content=task["user"])], True), True)
    special = {n: model.tokenize(n, True)[0] for n in ("[CALL]", "[HEAD]", "[END]", "[TRAP]", "<|end|>", "[INTR]")}
    file = cadenza.File.create()
    States = [cadenza.State(moves={special["[CALL]"]: 1, special["[TRAP]"]: 1}), cadenza.State(moves={special["[END]"]: 0}, open=False)]
    run = cadenza.Run(file, prompt, max_tokens=3000, stop_tokens=[special["<|end|>"]], states=States)
    said = []; running = set()
    async def call(name, code):
        value = await tool(code)
        run.interject(model.tokenize(f"[INTR]{name}[HEAD]{value}[END]", True))
    while run.finish == "running":
        tokens = await run.take()
        put = {i for f, c in run.interjected for i in range(f, f + c)}
        for i, t in enumerate(tokens):
            if i in put: continue
            said.append(t)
            if t == special["[END]"]:
                text = model.detokenize(said, special=True); said = []
                if "[CALL]" in text:
                    name, code = text.split("[CALL]")[1].removesuffix("[END]").split("[HEAD]")
                    task_ = asyncio.ensure_future(call(name, code)); running.add(task_)
    run.stop()
    file.close()

async def main(args):
    for task in args.tasks:
        took = await one(task, args)
        print(json.dumps({"number": task["number"], "seconds": took}), flush=True)
        await asyncio.sleep(1)
