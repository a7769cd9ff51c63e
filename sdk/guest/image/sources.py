"""The payload: source files by path, and the modules that they are."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.abc import InspectLoader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import CodeType, ModuleType

ENTRIES = ("main.py", "__main__.py")
NOT_COMPILED = (SyntaxError, ValueError, RecursionError, MemoryError, OverflowError)


class Sources(MetaPathFinder, InspectLoader):
    """Finds and loads the modules of a payload. `files`: their text by path, as the payload has it."""

    def __init__(self, payload: Sequence[tuple[str, str]] = ()) -> None:
        self.files: dict[str, str] = {}
        self._modules: dict[str, str] = {}      # path of each module; "" for a folder without __init__.py
        for path, text in payload:
            self._add(path.removeprefix("./"), text)

    def _add(self, path: str, text: str) -> None:
        self.files[path] = text
        if not path.endswith(".py"):
            return
        parts = path.removesuffix(".py").split("/")
        for depth in range(1, len(parts)):
            self._modules.setdefault(".".join(parts[:depth]), "")
        self._modules[".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts)] = path

    def entry(self) -> str:
        """The path of the file that has `main`: main.py, __main__.py, or the only one. Raises ValueError."""
        written = [path for path in self.files if path.endswith(".py")]
        for path in [*ENTRIES, *(written if len(written) == 1 else [])]:
            if path in self.files:
                return path
        raise ValueError(f"no main.py among {', '.join(sorted(self.files)) or 'no files'}: which one is to be run?")

    def faults(self) -> list[str]:
        """What keeps the payload from running, each as `file:line: message`; empty when nothing does."""
        found = [fault for path in self.files if path.endswith(".py") for fault in self._faults_of(path)]
        try:
            entry = self.entry()
        except ValueError as error:
            return [*found, str(error)]
        return found or self._faults_of_entry(entry)

    def _faults_of(self, path: str) -> list[str]:
        try:
            self.compiled(path)
        except NOT_COMPILED as error:
            message = error.msg if isinstance(error, SyntaxError) else str(error) or type(error).__name__
            return [f"{path}:{getattr(error, 'lineno', None) or 1}: {message}"]
        return []

    def _faults_of_entry(self, path: str) -> list[str]:
        bound = self.compiled(path).co_names
        if "main" in bound or "import *" in self.files[path]:
            return []
        return [no_main(path)]

    def compiled(self, path: str) -> CodeType:
        """The code of a file. Raises one of `NOT_COMPILED`."""
        code: CodeType = compile(self.files[path], path, "exec", dont_inherit=True)
        return code

    # --- what Python's import asks ---

    def install(self) -> None:
        """Puts these modules before all others, as the folder of a script comes before the library."""
        for name in self._modules:
            sys.modules.pop(name, None)
        sys.meta_path.insert(0, self)

    def load(self, path: str) -> ModuleType:
        """The module of a file, run. What `import` does, without its locks and searches."""
        name = path.removesuffix(".py").replace("/", ".")
        module = sys.modules[name] = ModuleType(name)
        module.__file__ = path
        module.__loader__ = self
        module.__spec__ = self.find_spec(name, None)
        exec(self.compiled(path), module.__dict__)
        return module

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        file = self._modules.get(fullname)
        if file is None:
            return None
        spec = ModuleSpec(fullname, self, origin=file, is_package=not file or file.endswith("__init__.py"))
        spec.has_location = bool(file)
        return spec

    def exec_module(self, module: ModuleType) -> None:
        path = self._modules[module.__name__]
        if path:
            exec(self.compiled(path), module.__dict__)

    def get_source(self, fullname: str) -> str | None:
        path = self._modules.get(fullname)
        return self.files.get(path) if path else None

    def get_code(self, fullname: str) -> CodeType | None:
        path = self._modules.get(fullname)
        return self.compiled(path) if path else None


def no_main(path: str) -> str:
    return f"{path}:1: no `main`: a program begins with `async def main(args):`"
