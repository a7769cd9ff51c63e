"""What the operator allows programs beyond the kernel: hosts, and MCP servers by name."""

from __future__ import annotations

import shlex
from dataclasses import dataclass

from cadenza.kernel.manifest import TOOL, Manifest, pattern
from cadenza.kvfs.errors import Invalid


@dataclass(frozen=True, slots=True)
class McpTarget:
    """One MCP server: `url` if it is reached by HTTP, else the `command` that starts it."""

    name: str
    url: str = ""
    command: tuple[str, ...] = ()

    @classmethod
    def parse(cls, text: str) -> McpTarget:
        """`NAME=COMMAND` or `NAME=http…`. Raises Invalid."""
        name, _, what = text.partition("=")
        if not TOOL.fullmatch(f"{name}.*") or not what.strip():
            raise Invalid(f"--mcp {text!r} should be NAME=COMMAND or NAME=https://…; a name has letters, digits, _ and "
                          "-", "mcp")
        if what.startswith(("http://", "https://")):
            return cls(name, url=what)
        try:
            return cls(name, command=tuple(shlex.split(what)))
        except ValueError as error:
            raise Invalid(f"--mcp {text!r}: {error}", "mcp") from None


@dataclass(frozen=True, slots=True)
class Allowed:
    """What `cadenza serve` was told: `hosts` by --allow-host, `servers` by --mcp NAME=COMMAND or NAME=URL."""

    hosts: tuple[str, ...] = ()
    servers: tuple[str, ...] = ()

    @property
    def targets(self) -> list[McpTarget]:
        """Raises Invalid."""
        return [McpTarget.parse(text) for text in self.servers]

    def as_manifest(self) -> Manifest:
        """Raises Invalid if an option is malformed, or a name is given twice."""
        for text in self.hosts:
            pattern(text)
        names = [target.name for target in self.targets]
        if len(set(names)) < len(names):
            raise Invalid(f"--mcp names a server twice: {', '.join(names)}", "mcp")
        return Manifest(self.hosts, tuple(f"{name}.*" for name in names))
