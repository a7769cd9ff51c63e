"""What is written is so: the reference names all of the ABI, every limit has its value, and links lead somewhere."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import pytest

from cadenza.kernel import limits
from cadenza.kernel.process import EXIT_CODES
from cadenza.kernel.wasm import wit
from cadenza.kvfs.errors import CadenzaError
from cadenza.syscalls.table import abi

ROOT = Path(__file__).parent.parent
REFERENCE = (ROOT / "docs" / "abi.md").read_text()
CODE = set(re.findall(r"`([^`\n]+)`", REFERENCE))                     # what is set as code
ROWS = re.findall(r"^\| `(\w+)` \| ([^|]+) \|", REFERENCE, re.MULTILINE)
PROCESS_LIMITS: dict[str, float] = asdict(limits.ProcessLimits())
KERNEL_LIMITS = {name: value for name, value in vars(limits).items() if name.isupper() and name != "MEBIBYTE"}
INTERFACES = wit.Abi.parse(abi()).functions


def section(interface: str) -> str:
    found = re.search(rf"^## Interface `{interface}`$(.*?)(?=^## |\Z)", REFERENCE, re.MULTILINE | re.DOTALL)
    assert found, f"docs/abi.md has no section of interface {interface}"
    return found[1]


@pytest.mark.parametrize("interface", INTERFACES)
def test_every_function_is_a_row_of_its_interface(interface: str) -> None:
    text = section(wit.plain_name(interface))
    rows = set(re.findall(r"^\| `([\w-]+)` \|", text, re.MULTILINE))
    assert set(INTERFACES[interface]) - rows == set()


def test_every_type_field_and_case_is_named() -> None:
    """Read off the text of the WIT, so that types which no function uses count too."""
    text = re.sub(r"//[^\n]*", "", abi())
    names: set[str] = set()
    for kind, name, body in re.findall(r"\b(record|enum|variant|flags) ([\w-]+) \{([^}]*)\}", text):
        names.add(name)
        if kind == "record":
            names.update(re.findall(r"([\w-]+):", body))
        else:
            names.update(re.findall(r"([\w-]+)", re.sub(r"\([^)]*\)", "", body)))
    assert {"exit-status", "stop-sequence", "exclusive", "page-tokens", "device-lost", "entropy"} <= names
    assert names - CODE == set()


def errors() -> Iterator[type[CadenzaError]]:
    waiting = [CadenzaError]
    while waiting:
        error = waiting.pop()
        waiting += error.__subclasses__()
        yield error


def test_every_errno_is_a_row_and_is_raised_by_some_error() -> None:
    table = REFERENCE[REFERENCE.index("| `errno` |"):REFERENCE.index("## Interface `types`")]
    rows = re.findall(r"^\| `([\w-]+)` \|", table, re.MULTILINE)[1:]
    body = re.search(r"enum errno \{([^}]*)\}", re.sub(r"//[^\n]*", "", abi()))
    assert body
    declared = re.findall(r"[\w-]+", body[1])
    assert rows == declared
    assert {error.errno for error in errors()} == set(declared)


def test_exit_codes_are_those_of_the_kernel() -> None:
    rows = dict(re.findall(r"^\| `([\w-]+)` \| (\d+) \|", section("process"), re.MULTILINE))
    assert {ending: int(code) for ending, code in rows.items()} == EXIT_CODES


def shown(name: str, value: float) -> str:
    """A limit as the tables write it."""
    if name.lower().endswith("seconds"):
        return f"{value:,g} s" if value < 1e6 else f"{value:,.0f} s"
    for size, unit in ((1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")):
        if "bytes" in name.lower().split("_") and value >= size and value % size == 0:
            return f"{value // size} {unit}"
    return f"{value:,}"


def test_every_limit_is_a_row_with_its_value() -> None:
    every = {name: shown(name, value) for name, value in (PROCESS_LIMITS | KERNEL_LIMITS).items()}
    assert {name: value.strip() for name, value in ROWS if name in every or name.isupper()} == every


def test_no_limit_is_named_that_is_not_there() -> None:
    named = set(re.findall(r"\b[A-Z]{3,}(?:_[A-Z]+)+\b", REFERENCE))
    assert named - set(KERNEL_LIMITS) == set()
    in_lower_case = {name for name in CODE if re.fullmatch(r"[a-z]+(_[a-z]+)+", name)}
    assert in_lower_case - set(PROCESS_LIMITS) == set()


def pages() -> list[Path]:
    return [ROOT / "README.md", *sorted((ROOT / "docs").glob("**/*.md"))]


def anchors(page: Path) -> set[str]:
    """Of its headings, as a link names them."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", pages(), ids=lambda page: page.name)
def test_links_lead_to_what_is_there(page: Path) -> None:
    text = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
    broken = []
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, heading = target.partition("#")
        file = page.parent / path if path else page
        if not file.exists() or (heading and heading not in anchors(file)):
            broken.append(target)
    assert not broken, f"{page.name} links to {broken}, which are not there"
