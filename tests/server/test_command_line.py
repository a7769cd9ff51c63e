"""The command line in processes of its own, against a daemon in another."""

from __future__ import annotations

import json
import os
import pty
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

SECONDS = 15.0                              # generous: nothing takes that long unless it hangs
HERE = Path(__file__).parent


def environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    paths = os.pathsep.join(path for path in sys.path if path)
    return {**os.environ, "PYTHONPATH": paths, "PYTHONWARNINGS": "error", "COLUMNS": "200", **(extra or {})}


@contextmanager
def daemon(state: Path, *options: str) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    command = [sys.executable, str(HERE / "command_daemon.py"), str(state), *options]
    log = (state / "log").open("w")
    with log, subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True, env=environment()) as process:
        try:
            assert process.stdout is not None
            for line in process.stdout:
                if line.startswith("address"):
                    yield line.split()[1], process
                    break
        finally:
            process.terminate()
            process.wait(SECONDS)


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with daemon(tmp_path_factory.mktemp("state")) as (found, _process):
        yield found


@pytest.fixture
def agent(tmp_path: Path) -> Path:
    path = tmp_path / "agent.py"
    path.write_text(f"# {tmp_path}\nasync def main(args): pass\n")
    return path


Answer = subprocess.CompletedProcess[str]


def cadenza(*words: object, address: str = "", text: str | None = None, **extra: str) -> Answer:
    command = [sys.executable, "-m", "cadenza.server.command_line", *map(str, words)]
    given = {"CADENZA_SERVER": address, **extra}
    stdin = {"input": text} if text is not None else {"stdin": subprocess.DEVNULL}
    return subprocess.run(
        command, capture_output=True, text=True, timeout=SECONDS, env=environment(given), check=False, **stdin
    )


def values(answer: Answer) -> list[dict[str, Any]]:
    assert answer.returncode == 0, answer.stderr
    return [json.loads(line) for line in answer.stdout.splitlines()]


def test_upload_images_rm(address: str, agent: Path) -> None:
    image = values(cadenza("upload", agent, "--json", address=address))[0]
    assert (image["name"], image["kind"]) == ("agent", "python")
    line = cadenza("images", address=address).stdout
    assert line.startswith(image["digest"][:12] + "\tagent\tpython\t")
    assert values(cadenza("--json", "rm", image["digest"][:8], address=address)) == [{"deleted": image["digest"][:8]}]
    again = cadenza("rm", image["digest"][:8], address=address)
    assert again.returncode == 1
    assert "no image" in again.stderr


def test_run_streams_output_and_ends_with_the_programs_code(address: str, agent: Path) -> None:
    answer = cadenza("run", agent, "--say", '["one\\n","two"]', "--code", "3", address=address)
    assert (answer.stdout, answer.stderr, answer.returncode) == ("one\ntwo", "", 3)


def test_run_as_json(address: str, agent: Path) -> None:
    events = values(cadenza("--json", "run", agent, "--say", '["one"]', address=address))
    assert (events[0]["kind"], events[0]["text"], events[0]["sequence"]) == ("output", "one", 1)
    assert events[-1] == {"exit": {"ending": "finished", "code": 0, "message": ""}}


def test_what_follows_the_file_is_the_programs(address: str, agent: Path) -> None:
    words = ("run", "--arguments", '{"deep": {"a": 1}}', agent, "--json", "--server", "x", "--", "--help")
    assert cadenza(*words, address=address).returncode == 0
    known = values(cadenza("ps", "--all", "--json", address=address))[-1]
    expected = {"deep": {"a": 1}, "json": True, "server": "x", "arguments": ["--help"]}
    assert json.loads(known["arguments"]) == expected


def test_a_program_is_uploaded_once(address: str, agent: Path) -> None:
    for _ in range(2):
        assert cadenza("run", agent, address=address).returncode == 0
    assert cadenza("images", address=address).stdout.count("\tagent\t") >= 1
    digests = [image["digest"] for image in values(cadenza("images", "--json", address=address))]
    assert len(digests) == len(set(digests))


def test_piped_lines_are_messages(address: str, agent: Path) -> None:
    answer = cadenza("run", agent, "--hang", address=address, text="hello\nstop")
    assert (answer.stdout, answer.returncode) == ("echo hello\necho stop\n", 0)


def test_a_priority_is_shown_and_bounded(address: str, agent: Path) -> None:
    pid = values(cadenza("run", "--detach", "--json", "--priority", "-2", agent, "--hang", address=address))[0]["pid"]
    row = next(line for line in cadenza("ps", address=address).stdout.splitlines() if line.startswith(f"{pid}\t"))
    assert row.split("\t")[4] == "-2"
    assert {p["pid"]: p["priority"] for p in values(cadenza("top", "--once", "--json", address=address))[0][
        "processes"]}[pid] == -2
    refused = cadenza("run", "--priority", "1", agent, address=address)
    assert (refused.returncode, "0 at most" in refused.stderr) == (125, True)
    assert cadenza("serve", "--max-priority", "11").returncode == 2
    assert cadenza("kill", pid, address=address).returncode == 0


def test_detached_ps_logs_attach_kill(address: str, agent: Path) -> None:
    started = values(cadenza("run", "--detach", "--json", agent, "--hang", "--say", '["hi\\n"]', address=address))[0]
    pid = started["pid"]
    lines = cadenza("ps", address=address).stdout.splitlines()
    row = next(line for line in lines if line.startswith(f"{pid}\t"))
    assert row.split("\t")[1:3] == ["agent", "running"]
    assert cadenza("logs", pid, address=address).stdout == "hi\n"
    attached = cadenza("attach", pid, "--after", "1", address=address, text="more\nstop\n")
    assert attached.stdout == "echo more\necho stop\n"
    late = cadenza("logs", pid, "--json", "--follow", address=address)
    assert values(late)[-1]["exit"]["ending"] == "finished"
    second = values(cadenza("run", "--detach", "--json", agent, "--hang", address=address))[0]["pid"]
    assert cadenza("kill", second, "--signal", "kill", address=address).stdout == f"kill {second}\n"
    ended = cadenza("attach", second, address=address)
    assert (ended.returncode, ended.stderr) == (137, "cadenza: killed: signal kill\n")


def test_top_once(address: str, agent: Path) -> None:
    pid = values(cadenza("run", "--detach", "--json", agent, "--hang", address=address))[0]["pid"]
    (frame,) = values(cadenza("top", "--once", "--json", "--interval", "0.1", address=address))
    assert (frame["device_busy"], frame["tokens_per_second"], frame["rows_per_step"]) == (0.5, 20.0, 5.0)
    known = {process["pid"]: process for process in frame["processes"]}
    assert (known[pid]["waiting_for"], known[pid]["tokens_per_second"]) == ("search", 5.0)
    lines = cadenza("top", "--interval", "0.1", address=address).stdout.splitlines()
    assert lines[1] == "busy: 50%, 2.0 steps/s of 5.0 rows and 12.0 tokens"
    assert lines[-1].split("\t")[1:4] == ["agent", "waiting", "search"]
    assert cadenza("kill", pid, address=address).returncode == 0


def test_top_on_a_terminal_goes_on_until_it_is_interrupted(address: str) -> None:
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "cadenza.server.command_line", "top", "--interval", "0.1"]
    given = environment({"CADENZA_SERVER": address, "TERM": "xterm"})
    with subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, env=given) as process:
        os.close(theirs)
        shown = b"".join(read_until(ours, b"\x1b[H") for _ in range(3)) + read_until(ours, b"50%")
        process.send_signal(signal.SIGINT)
        shown += read_until(ours, b"\x1b[?1049l")            # the screen that was there before comes back
        assert process.wait(SECONDS) == 0
    os.close(ours)
    assert b"busy" in shown
    assert b"WAITS FOR" in shown


def test_rm_of_processes_images_and_paths(address: str, agent: Path) -> None:
    digest = values(cadenza("upload", agent, "--name", "12", "--json", address=address))[0]["digest"]
    pid, alive = (values(cadenza("run", "--detach", "--json", agent, *more, address=address))[0]["pid"]
                  for more in ((), ("--hang",)))
    assert cadenza("rm", pid, address=address).stdout == f"deleted {pid}\n"
    assert f"no process {pid}" in cadenza("logs", pid, address=address).stderr
    refused = cadenza("rm", alive, address=address)
    assert (refused.returncode, refused.stderr) == (1, f"cadenza: process {alive} is alive; end it first\n")
    assert "no process 9999999" in cadenza("rm", "9999999", address=address).stderr
    assert "no image '99999999'" in cadenza("rm", "99999999", address=address).stderr
    assert cadenza("kill", alive, "--signal", "kill", address=address).returncode == 0
    both = values(cadenza("rm", "--json", alive, digest[:12], address=address))
    assert both == [{"deleted": str(alive)}, {"deleted": digest[:12]}]


def test_interrupt_then_kill(address: str, agent: Path) -> None:
    command = [sys.executable, "-m", "cadenza.server.command_line", "run", str(agent), "--hang", "--stubborn"]
    command += ["--say", '["ready\\n"]']
    pipe = subprocess.PIPE
    given = environment({"CADENZA_SERVER": address})
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True, env=given) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGINT)
        assert process.stderr.readline().startswith("cadenza: interrupt")
        process.send_signal(signal.SIGINT)
        assert process.wait(SECONDS) == 137  # although standard input is open still
        assert "kill" in process.stderr.read()


def test_on_a_terminal(address: str, agent: Path) -> None:
    """A typed line reaches the program, `ps` is a table, and an open terminal does not keep the command alive."""
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "cadenza.server.command_line", "run", str(agent), "--hang", "--say", '["hi\\n"]']
    given = environment({"CADENZA_SERVER": address, "TERM": "xterm"})
    with subprocess.Popen(
        command, stdin=theirs, stdout=theirs, stderr=theirs, env=given, start_new_session=True
    ) as process:
        os.close(theirs)
        shown = read_until(ours, b"hi")
        os.write(ours, b"stop\n")
        shown += read_until(ours, b"echo stop")
        assert process.wait(SECONDS) == 0
    os.close(ours)
    assert b"echo stop" in shown


def test_errors_are_one_line(address: str, tmp_path: Path) -> None:
    missing = cadenza("run", tmp_path / "none.py", address=address)
    assert missing.returncode == 125
    assert missing.stderr == f"cadenza: cannot read {tmp_path}/none.py: No such file or directory\n"
    (tmp_path / "bad.py").write_text("def (")
    wrong = cadenza("run", "--json", tmp_path / "bad.py", address=address)
    assert json.loads(wrong.stderr)["error"] == {
        "errno": "invalid", "message": "agent.py, line 1: invalid syntax", "field": "data",
    }  # fmt: skip
    assert cadenza("logs", "99999", address=address).returncode == 1
    assert cadenza("run", "--arguments", "[1]", "x.py", address=address).returncode == 125


def test_no_daemon() -> None:
    answer = cadenza("ps", "--server", "127.0.0.1:1")
    assert answer.returncode == 1
    assert answer.stderr.count("\n") == 1
    assert "start one with 'cadenza serve'" in answer.stderr


def test_serve_announces_itself_and_stops_gracefully(tmp_path: Path) -> None:
    with daemon(tmp_path) as (address, process):
        assert cadenza("ps", address=address).returncode == 0
        process.terminate()
        assert process.wait(SECONDS) == 0
    assert "load weights: done" in (tmp_path / "log").read_text()


def test_serve_as_json(tmp_path: Path) -> None:
    command = [sys.executable, str(HERE / "command_daemon.py"), str(tmp_path), "--json"]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, env=environment()) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert json.loads(process.stderr.readline()) == {"progress": "load weights", "done": 3, "total": 3}
        serving = json.loads(process.stdout.readline())
        process.send_signal(signal.SIGINT)
        assert process.wait(SECONDS) == 0
    assert serving["serving"].startswith("127.0.0.1:")
    assert (serving["model"], serving["pages"], serving["kv_tokens"]) == ("fake", 64, 1024)


def test_serve_refuses_before_it_loads_anything(tmp_path: Path) -> None:
    answer = cadenza("serve", "--address", "0.0.0.0:0", "--state", tmp_path / "state")
    assert answer.returncode == 1
    assert "needs keys (--keys) and TLS" in answer.stderr
    assert not (tmp_path / "state").exists()


def test_keys(tmp_path: Path) -> None:
    state = {"CADENZA_STATE": str(tmp_path)}
    first = values(cadenza("keys", "add", "ann", "--json", **state))[0]
    assert first["key"].startswith("cadenza-")
    assert cadenza("keys", "add", "ann", **state).stdout.startswith("cadenza-")
    assert cadenza("keys", "list", **state).stdout == "ann\t2\n"
    assert cadenza("keys", "remove", "ann", **state).stdout == "removed 2 of ann\n"
    assert cadenza("keys", "add", "Not A User", **state).returncode == 1


def test_doctor(tmp_path: Path) -> None:
    answer = cadenza("doctor", tmp_path, "--json", CADENZA_CACHE=str(tmp_path))
    assert answer.returncode == 1
    found = {finding["check"]: finding for finding in map(json.loads, answer.stdout.splitlines())}
    assert found["python"]["verdict"] == "ok"
    assert found["wasmtime"]["detail"][0].isdigit()
    assert found["python image"]["verdict"] != "ok"
    assert (found["model"]["verdict"], found["model"]["remedy"] != "") == ("fault", True)


def test_commands_do_not_import_the_model() -> None:
    code = (
        "import sys, cadenza.server.command_line, cadenza.sdk.client\n"
        "heavy = {'torch', 'jinja2', 'transformers', 'tokenizers', 'numpy', 'wasmtime', 'huggingface_hub'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment(), check=True)
    assert answer.stdout == "[]\n"


def read_until(descriptor: int, wanted: bytes) -> bytes:
    seen = b""
    ends = time.monotonic() + SECONDS
    while wanted not in seen and time.monotonic() < ends:
        if not select.select([descriptor], [], [], 1.0)[0]:
            continue
        try:
            seen += os.read(descriptor, 4096)
        except OSError:  # the other side has closed the terminal
            break
    return seen


def test_a_trace_is_drawn_and_written(address: str, agent: Path, tmp_path: Path) -> None:
    marks = '[["begin","1","search(<b>)"],["instant","interrupt","1 = 42"],["end","1","42"]]'
    pid = values(cadenza("run", "--detach", "--json", agent, "--marks", marks, address=address))[0]["pid"]
    (value,) = values(cadenza("trace", pid, "--json", address=address))
    assert [record["kind"] for record in value["records"]] == ["begin", "instant", "end"]
    assert (value["pid"], value["exit"]["ending"], value["lost"]) == (pid, "finished", 0)
    for more in ((), ("--follow",)):
        lines = cadenza("trace", pid, *more, address=address).stdout.splitlines()
        assert lines[0].startswith(f"process {pid}, agent: finished (0), ")
        assert [line.split()[0] for line in lines[2:5]] == ["model", "1", "interrupt"]
    page, drawing = tmp_path / "page.html", tmp_path / "drawing.svg"
    written = cadenza("trace", pid, "--html", page, "--svg", drawing, address=address)
    assert (written.returncode, written.stdout) == (0, "")
    assert "search(&lt;b&gt;) → 42" in page.read_text()
    assert "search(&lt;b&gt;) → 42" in drawing.read_text()
    refused = cadenza("trace", pid, "--svg", tmp_path / "absent" / "x.svg", address=address)
    assert (refused.returncode, "cannot be written" in refused.stderr) == (1, True)
    assert "no process 999" in cadenza("trace", 999, address=address).stderr


def test_a_trace_is_followed_until_its_process_has_ended(address: str, agent: Path) -> None:
    pid = values(cadenza("run", "--detach", "--json", agent, "--hang", address=address))[0]["pid"]
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "cadenza.server.command_line", "trace", str(pid), "--follow", "--interval", "0.1"]
    given = environment({"CADENZA_SERVER": address, "TERM": "xterm"})
    with subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, env=given) as process:
        os.close(theirs)
        shown = read_until(ours, b"agent: running")
        assert process.poll() is None
        assert cadenza("kill", pid, "--signal", "kill", address=address).returncode == 0
        shown += read_until(ours, b"killed (137)")
        assert process.wait(SECONDS) == 0
    os.close(ours)
    assert b"model" in shown
