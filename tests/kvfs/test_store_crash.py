"""kill -9 at random moments: what was told to be durable is there, with its checksums; the rest is whole or absent."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

KILLS = 120
ROOT = Path(__file__).parents[2]


def test_what_was_durable_survives_kills(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.kvfs.crasher", str(tmp_path / "kv"), str(KILLS)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, (ROOT / "src", ROOT)))}
    ended = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300)
    assert ended.returncode == 0, ended.stderr
    told = json.loads(ended.stdout)
    assert told["kills"] == KILLS
    assert told["done"] > 2 * KILLS, "the children hardly worked"
    assert told["amid"] > KILLS / 2, "hardly a child was killed amid something"
