"""A daemon around the fake kernel, in a process of its own: `python command_daemon.py STATE`. For tests of commands."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import TYPE_CHECKING, cast

from cadenza.server.command_serve import run_daemon
from cadenza.server.options import ListenOptions, Progress, ServeOptions
from cadenza.server.screen import Screen

if TYPE_CHECKING:
    from cadenza.kernel.kernel import Kernel


async def boot(options: ServeOptions, progress: Progress) -> Kernel:
    """The fake kernel, after some progress."""
    for done in range(3):
        progress("load weights", done + 1, 3)
    path = Path(__file__).with_name("fake_kernel.py")
    spec = importlib.util.spec_from_file_location("fake_kernel", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["fake_kernel"] = module
    spec.loader.exec_module(module)
    return cast("Kernel", module.FakeKernel())


if __name__ == "__main__":
    json = sys.argv[2:] == ["--json"]
    run_daemon(boot, ServeOptions(state=Path(sys.argv[1])), ListenOptions("127.0.0.1:0"), Screen(json=json))
