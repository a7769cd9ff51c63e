import asyncio, json
import cadenza
from cadenza import model
from cadenza.events import now

async def one(task, args):
    calls = {}
    for name, code, seconds, value in task["calls"]: calls.setdefault(code, []).append((seconds, value))
    async def tool(code):
        seconds, value = calls[code].pop(0)
        await asyncio.sleep(seconds)
        return value
    began = now()
    system = f"{args.agent}: {task['declared']}"
    if args.agent == "asynchronous":
        await asynchronous(system, task, args, tool)
    else:
        await synchronous(system, task, args, tool)
    ended = now()
    assert not any(calls.values()), calls
    return ended - began

async def synchronous(system, task, args, tool):
    context = cadenza.Context()
    context.system(system); context.user(task["user"])
    while True:
        if args.resume:
            await asyncio.sleep(args.resume)
        g = context.generate(max_tokens=2000)
        text = await g.text()
        codes = model.detokenize(g.tokens, special=True).removesuffix("<|end|>").split("<|call|>")[1:]
        if not codes:
            assert text == "Done.", text
            break
        values = await asyncio.gather(*(tool(code) for code in codes))
        for value in values: context.tool(value)
    context.close()

async def asynchronous(system, task, args, tool):
    prompt = model.tokenize(model.chat([dict(role="system", content=system), dict(role="user", content=task["user"])], True), True)
    special = {n: model.tokenize(n, True)[0] for n in ("[CALL]", "[HEAD]", "[END]", "[TRAP]", "<|end|>", "[INTR]")}
    file = cadenza.File.create()
    States = [cadenza.State(moves={special["[CALL]"]: 1, special["[TRAP]"]: 1}), cadenza.State(moves={special["[END]"]: 0}, open=False)]
    def start(tokens): return cadenza.Run(file, tokens, max_tokens=3000, stop_tokens=[special["<|end|>"]], stop_sequences=[[special["[TRAP]"], special["[END]"]]], states=States)
    run = start(prompt)
    said = []; pending = []; running = 0; wake = asyncio.Event()
    async def call(name, code):
        nonlocal running
        running += 1
        value = await tool(code)
        running -= 1
        pending.append(model.tokenize(f"[INTR]{name}[HEAD]{value}[END]", True))
        if run.finish == "running":
            run.interject(pending[-1])
        wake.set()
    while True:
        tokens = await run.take()
        put = {i for f, c in run.interjected for i in range(f, f + c)}
        del pending[:len(run.interjected)]
        for i, t in enumerate(tokens):
            if i in put: continue
            said.append(t)
            if t == special["[END]"]:
                text = model.detokenize(said, special=True); said = []
                if "[CALL]" in text:
                    name, code = text.split("[CALL]")[1].removesuffix("[END]").split("[HEAD]")
                    asyncio.ensure_future(call(name, code))
        if run.finish == "running": continue
        if run.finish != "stop-sequence": break
        last = tokens[-1]
        while not pending or (args.until == "all" and running):
            wake.clear(); await wake.wait()
        run = start([last, *(t for p in pending for t in p)]); pending.clear()
    file.close()

async def main(args):
    for task in args.tasks:
        print(await one(task, args), flush=True)
        await asyncio.sleep(1)
