"""One process: its payload and arguments come from `start`; its log goes to the toy."""

from dataclasses import dataclass
from enum import Enum

from wit_world.imports.types import refuse
from wit_world.toy import toy

OutputStream = Enum("OutputStream", "OUTPUT ERROR", start=0)
MarkKind = Enum("MarkKind", "BEGIN END INSTANT", start=0)
Signal = Enum("Signal", "TERMINATE KILL INTERRUPT USER", start=0)
Ending = Enum(
    "Ending", "FINISHED FAILED EXITED TRAPPED KILLED CPU_LIMIT WALL_LIMIT MEMORY_LIMIT OUTPUT_LIMIT", start=0
)


@dataclass
class ExitStatus:
    ending: Ending
    code: int
    message: str


def pid() -> int:
    return 7


def entropy() -> int:
    return 0x1234_5678_9ABC_DEF0 + len(toy.log)


def log(to: OutputStream, text: str) -> None:
    toy.log.append((to.name.lower(), text))


def exit(code: int) -> None:
    raise SystemExit(code)


def spawn(image: str, arguments: str, detached: bool) -> int:
    if image != "child":
        refuse("NOT_FOUND", f"no image {image}")
    return 8


def wait_child(pid: int) -> int:
    return toy.handle("child", toy.now + 5)


def take_exit(child: int) -> ExitStatus:
    return ExitStatus(Ending.EXITED, 3, "")


def kill(pid: int, signal: Signal) -> None:
    toy.log.append(("kill", f"{pid} {signal.name}"))


def signals() -> int:
    return toy.handle("signals", toy.now + 5)


def take_signal(signals: int) -> Signal | None:
    toy.ready_at[signals] = float("inf")
    return Signal.TERMINATE


def mark(kind: MarkKind, track: str, text: str) -> None:
    toy.log.append((kind.name.lower(), f"{track}: {text}"))
