"""KV files and the whole system: a daemon that is killed, and the session that goes on after it."""

from __future__ import annotations

import json
import signal
import subprocess
from pathlib import Path

from tests.system.test_daemon import COMMAND, PATIENCE_SECONDS, Daemon

SESSION = Path(__file__).resolve().parents[2] / "examples" / "session" / "agent.py"


def stop(daemon: Daemon, number: signal.Signals) -> None:
    daemon.process.send_signal(number)
    daemon.process.wait(PATIENCE_SECONDS)
    assert daemon.process.stdout is not None
    daemon.process.stdout.close()


def offline(*words: str, ended: int = 0) -> str:
    done = subprocess.run([*COMMAND, *words], text=True, capture_output=True, timeout=PATIENCE_SECONDS, check=False)
    assert done.returncode == ended, (done.stdout, done.stderr)
    return done.stdout


def test_a_session_survives_kill_9_and_files_are_a_users_to_arrange(tmp_path: Path) -> None:
    first = Daemon(tmp_path)
    said = first.cadenza("run", str(SESSION))
    assert said == (SESSION.parent / "expected.txt").read_text()
    held = json.loads(first.cadenza("stat", "--json", "sessions/vera"))
    assert (held["durable"], held["exact"], held["owner"]) == (True, True, "local")
    stop(first, signal.SIGKILL)

    assert "1 files" in offline("fsck", "--state", str(tmp_path))
    second = Daemon(tmp_path)
    said = second.cadenza("run", str(SESSION))
    assert said.startswith("> Where does Vera live?\nVera lives in Lisbon.")
    assert f"({held['tokens']} tokens were there already" in said
    assert int(said.rsplit(", ", 1)[1].split()[0]) < 20
    assert second.cadenza("ls", "sessions").split("\t")[-1] == "vera\n"
    assert "Vera keeps a red kite" in second.cadenza("cat", "sessions/vera")
    second.cadenza("cp", "sessions/vera", "/shared/vera")
    second.cadenza("mv", "sessions", "old")
    second.cadenza("ln", "old/vera", "again")
    assert second.cadenza("chmod", "o=r,bob=ra", "again").startswith("ra r-+")
    assert second.cadenza("df").splitlines()[-1].startswith("disk\t")
    second.cadenza("rm", "./again")
    stop(second, signal.SIGTERM)

    third = Daemon(tmp_path)
    assert json.loads(third.cadenza("stat", "--json", "old/vera"))["grants"] == {"bob": ["append", "read"]}
    assert "no file" in third.cadenza("stat", "/shared/vera", ended=1)        # a copy that nobody synced
    stop(third, signal.SIGTERM)
    (segment,) = (tmp_path / "kv" / "segments").glob("*/000000")
    data = bytearray(segment.read_bytes())
    data[5000] ^= 1
    segment.write_bytes(data)
    assert "/home/local/old/vera: slot 0" in offline("fsck", "--state", str(tmp_path), ended=1)
    assert "repaired" in offline("fsck", "--state", str(tmp_path), "--repair")
    assert "clean" in offline("fsck", "--state", str(tmp_path))
