"""The daemon and the command line as processes: what a person does, on the bundled model."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

COMMAND = [sys.executable, "-m", "cadenza.server.command_line"]
PATIENCE_SECONDS = 240


class Daemon:
    def __init__(self, state: Path) -> None:
        self.process = subprocess.Popen(
            [*COMMAND, "serve", "--json", "--address", "127.0.0.1:0", "--threads", "1", "--state", str(state)],
            stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        lines = (json.loads(line) for line in self.process.stdout)
        self.address = next(line["serving"] for line in lines if "serving" in line)
        self.worker = self._worker()

    def cadenza(self, *words: str, ended: int | None = 0) -> str:
        done = subprocess.run([*COMMAND, *words], env={**os.environ, "CADENZA_SERVER": self.address}, text=True,
                              capture_output=True, stdin=subprocess.DEVNULL, timeout=PATIENCE_SECONDS, check=False)
        assert ended is None or done.returncode == ended, (done.returncode, done.stdout, done.stderr)
        return done.stdout + done.stderr

    def _worker(self) -> int:
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        (worker,) = [int(pid) for pid in children if b"device.worker" in Path(f"/proc/{pid}/cmdline").read_bytes()]
        return worker


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Daemon]:
    running = Daemon(tmp_path)
    yield running
    running.process.send_signal(signal.SIGTERM)
    assert running.process.wait(PATIENCE_SECONDS) == 0
    assert running.process.stdout is not None
    running.process.stdout.close()
    assert not Path(f"/proc/{running.worker}").exists()


@pytest.fixture
def agent(tmp_path: Path) -> Path:
    path = tmp_path / "agent.py"
    path.write_text("import cadenza\nasync def main(args):\n    async with cadenza.Context() as context:\n"
                    "        context.user(args.question)\n        print(await context.generate(40).text())\n")
    return path


def test_top_tells_what_goes_on(daemon: Daemon, tmp_path: Path) -> None:
    path = tmp_path / "busy.py"
    path.write_text("import asyncio, cadenza\nasync def main(args):\n    file = cadenza.File.create()\n"
                    "    await cadenza.forward(file, [5] * 40)\n    if args.idle:\n        await cadenza.receive()\n"
                    "    while True:\n        run = cadenza.Run(file, [6], max_tokens=200)\n"
                    "        while run.finish == 'running':\n            await run.take()\n"
                    "        file.truncate(40)\n")
    daemon.cadenza("run", "--detach", str(path), "--idle=true")
    busy = json.loads(daemon.cadenza("run", "--detach", "--json", str(path), "--idle=false"))["pid"]
    frame = json.loads(daemon.cadenza("top", "--once", "--json"))
    while frame["processes"][0]["state"] != "decoding":
        frame = json.loads(daemon.cadenza("top", "--once", "--json"))
    assert 0 < frame["device_busy"] <= 1
    assert frame["steps_per_second"] > 0
    assert frame["tokens_per_second"] > 0
    decoding, waiting = frame["processes"]
    assert (decoding["pid"], decoding["waiting_for"]) == (busy, "tokens")
    assert decoding["tokens"] > decoding["tokens_per_second"] * frame["seconds"] > 0
    assert (waiting["state"], waiting["waiting_for"], waiting["tokens_per_second"]) == ("waiting", "message", 0)
    shared = waiting["pages"].pop("shared")                   # the pages of its prompt that are full
    assert (sum(waiting["pages"].values()), shared) == (3, 2)
    tiers = {tier["name"]: tier["used_pages"] for tier in frame["tiers"]}
    assert tiers["device"] >= decoding["pages"]["device"] >= 3       # those of its prompt, and maybe more
    assert "decoding" in daemon.cadenza("top")
    daemon.cadenza("kill", "1", "--signal", "kill")
    assert "alive" in daemon.cadenza("rm", "2", ended=1)
    assert daemon.cadenza("rm", "1") == "deleted 1\n"
    assert "no process 1" in daemon.cadenza("logs", "1", ended=1)


def test_a_day_in_the_life(daemon: Daemon, agent: Path) -> None:
    said = daemon.cadenza("run", str(agent), "--question", "Who are you?")
    assert said.strip()
    assert "agent" in daemon.cadenza("images")
    assert "finished" in daemon.cadenza("ps", "--all")
    broken = agent.with_name("broken.py")
    broken.write_text("def main(args):\n    return (\n")
    assert "main.py:2" in daemon.cadenza("run", str(broken), ended=125)
    facts = json.loads(daemon.cadenza("ps", "--all", "--json").splitlines()[0])
    assert facts["exit"]["ending"] == "finished"
    os.kill(daemon.worker, signal.SIGKILL)                    # the device comes back, and nobody notices
    assert daemon.cadenza("run", str(agent), "--question", "Who are you?") == said
    lost, daemon.worker = daemon.worker, daemon._worker()
    assert daemon.worker != lost


def test_a_daemon_that_stops_tells_programs_and_their_clients(daemon: Daemon, tmp_path: Path) -> None:
    waits, heeds = tmp_path / "waits.py", tmp_path / "heeds.py"
    waits.write_text("import cadenza\nasync def main(args):\n    print('up', flush=True)\n"
                     "    await cadenza.receive()\n")
    heeds.write_text("import asyncio, cadenza\nasync def hear():\n    async for signal in cadenza.signals():\n"
                     "        return signal\nasync def main(args):\n    heard = asyncio.create_task(hear())\n"
                     "    await asyncio.sleep(0)\n    print('up', flush=True)\n    print('told to', await heard)\n")
    clients = [subprocess.Popen([*COMMAND, "run", str(path)], env={**os.environ, "CADENZA_SERVER": daemon.address},
                                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
               for path in (waits, heeds)]
    for client in clients:
        assert client.stdout is not None
        assert client.stdout.readline() == "up\n"
    daemon.process.send_signal(signal.SIGTERM)
    (_, killed), (heard, _) = (client.communicate(timeout=PATIENCE_SECONDS) for client in clients)
    assert [client.returncode for client in clients] == [137, 0], (killed, heard)
    assert "terminate" in killed
    assert heard == "told to terminate\n"
    assert daemon.process.wait(PATIENCE_SECONDS) == 0


def test_a_trace_shows_calls_beside_tokens(daemon: Daemon, tmp_path: Path) -> None:
    path = tmp_path / "busy.py"
    path.write_text("import asyncio, cadenza\nfrom cadenza import trace\n"
                    "async def call(number, seconds):\n"
                    "    with trace.span(str(number), f'sleep({seconds})') as span:\n"
                    "        await asyncio.sleep(seconds)\n        span.result = '<done>'\n"
                    "    trace.instant('interrupt', f'{number} = <done>')\n"
                    "async def main(args):\n    calls = [asyncio.create_task(call(n, 0.1 * n)) for n in (1, 2)]\n"
                    "    file = cadenza.File.create()\n    run = cadenza.Run(file, [5] * 40, max_tokens=30)\n"
                    "    while run.finish == 'running':\n        await run.take()\n"
                    "    with trace.span('trap'):\n        await asyncio.gather(*calls)\n")
    daemon.cadenza("run", "--timeline", str(tmp_path / "drawing.svg"), str(path))
    assert (tmp_path / "drawing.svg").read_text().startswith("<svg")
    seen = json.loads(daemon.cadenza("trace", "1", "--json"))
    records = seen["records"]
    assert (seen["exit"]["ending"], seen["lost"]) == ("finished", 0)
    times = {(r["kind"], r["track"]): r["seconds"] for r in records}
    assert times["begin", "1"] <= times["begin", "2"] < times["end", "1"] < times["end", "2"] <= seen["seconds"]
    assert times["end", "2"] - times["begin", "2"] >= 0.2
    (fed,) = [r for r in records if r["kind"] == "fed"]
    (run,) = [r for r in records if r["kind"] == "run"]
    assert (fed["count"] + fed["reused"], run["track"]) == (40, "run 1")
    tokens = [r for r in records if r["kind"] == "sampled"]
    assert sum(r["count"] for r in tokens) >= 1
    assert fed["until"] <= tokens[0]["seconds"] <= tokens[-1]["until"] <= run["until"] + 1
    lines = daemon.cadenza("trace", "1").splitlines()
    assert [line.split()[0] for line in lines[2:7]] == ["model", "1", "2", "trap", "interrupt"]
    assert "█" in lines[2]
    daemon.cadenza("trace", "1", "--html", str(tmp_path / "page.html"))
    assert "sleep(0.2) → &lt;done&gt;" in (tmp_path / "page.html").read_text()
