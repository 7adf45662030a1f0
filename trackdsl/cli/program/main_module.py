"""Runs a script or a module in this process as `python` would: as `__main__`, with its arguments and search path."""

from __future__ import annotations

import builtins
import io
import os
import pkgutil
import runpy
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib.machinery import BuiltinImporter, ModuleSpec, PathFinder, SourceFileLoader, SourcelessFileLoader
from types import CodeType, ModuleType
from typing import Any

from trackdsl.cli.program.debuggers import hide_callers

#: Makes the code of the program: takes its source and the path of its file.
Compile = Callable[[bytes, str], CodeType]

#: The main module of the command `trackdsl`. Python still uses its dict after an exception has ended the program, and
#: would crash without it: nothing else keeps it alive once no traceback refers to it, for example at a syntax error.
_replaced: list[ModuleType] = []


def plain_code(source: bytes, path: str) -> CodeType:
    """The code of a source file, as `python` compiles it."""
    code: CodeType = compile(source, path, "exec", dont_inherit=True)
    return code


@dataclass(frozen=True)
class Program:
    """A program, as the command line of `python` names it.

    Attributes:
        target: the path of a script, of a folder or zip file with a `__main__.py`; or the name of a module.
        is_module: whether `target` is the name of a module, as after `python -m`.
        arguments: what follows it in the command line.
    """

    target: str
    is_module: bool = False
    arguments: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """A short name: that of the module, or of the file without its suffix."""
        if self.is_module:
            return self.target
        return os.path.splitext(os.path.basename(os.path.abspath(self.target)))[0] or "program"

    @property
    def path(self) -> str:
        """The absolute path of the target as `python` makes it, for example with `./` in it."""
        return os.path.join(os.getcwd(), self.target)

    def is_package(self) -> bool:
        """Whether the target is a folder or a zip file."""
        return not self.is_module and (os.path.isdir(self.path) or pkgutil.get_importer(self.path) is not None)

    def file(self) -> str:
        """The path of the main file; empty if it is not known."""
        if not self.is_module:
            return os.path.join(self.path, "__main__.py") if self.is_package() else self.path
        spec = found_module(self.target)
        if spec is not None and spec.submodule_search_locations is not None:
            spec = found_module(f"{self.target}.__main__")
        return "" if spec is None else spec.origin or ""

    def prepare(self) -> None:
        """Make the process look like one of `python` with this program: `sys.argv`, `sys.path` and `__main__`."""
        sys.argv = [self.target, *self.arguments]
        # What `python` has put first, for the command `trackdsl`, makes room for what it would put there.
        own = 0 if sys.flags.safe_path else 1
        first = [os.getcwd() if self.is_module else os.path.dirname(os.path.realpath(self.path))]
        if self.is_package():
            first = [self.path]
        elif sys.flags.safe_path:
            first = []
        sys.path[:own] = first
        _replaced.append(sys.modules["__main__"])
        sys.modules["__main__"] = _main_module()
        if self.is_module:
            sys.argv[0] = self.file() or "-m"

    def execute(self, compile_main: Compile = plain_code) -> None:
        """Run the program. Call `prepare` first.

        Args:
            compile_main: makes the code of a script or module.

        Raises:
            BaseException: what the program raises.
        """
        if self.is_module or self.is_package():
            self._execute_module(compile_main)
        else:
            self._execute_script(compile_main)

    def _execute_script(self, compile_main: Compile) -> None:
        hide_callers()
        main, path = sys.modules["__main__"], self.path
        loader: Any = SourceFileLoader("__main__", path)
        if path.endswith(".pyc"):
            loader = SourcelessFileLoader("__main__", path)
            code = loader.get_code("__main__")
        else:
            with io.open_code(path) as file:
                source = file.read()
            code = compile_main(source, path)
        vars(main).update(__file__=path, __cached__=None, __loader__=loader)
        # It may be changed or deleted while the program runs: the frames keep this dict alive.
        exec(code, vars(main))  # noqa: S102 - the user's program

    def _execute_module(self, compile_main: Compile) -> None:
        hide_callers()
        private: Any = runpy  # The frames of its functions are in every traceback of `python -m`.
        if compile_main is not plain_code:
            original = private._get_module_details

            def details(*args: Any, **kwargs: Any) -> Any:
                found = name, spec, _ = original(*args, **kwargs)
                source = spec.loader.get_source(name) if hasattr(spec.loader, "get_source") else None
                private._get_module_details = original
                return found if source is None else (name, spec, compile_main(source.encode(), spec.origin))

            private._get_module_details = details
        if self.is_module:
            sys.argv[0] = "-m"  # As long as the packages around it are imported.
            private._run_module_as_main(self.target, True)
        else:
            private._run_module_as_main("__main__", False)


def found_module(name: str) -> ModuleSpec | None:
    """Find a module among the files of `sys.path`, without an import of the packages around it.

    >>> found_module("json.tool").name, found_module("json.there_is_none")
    ('json.tool', None)
    """
    spec, folders = None, None
    parts = name.split(".")
    for length in range(1, len(parts) + 1):
        spec = PathFinder.find_spec(".".join(parts[:length]), folders)
        folders = None if spec is None else spec.submodule_search_locations
        if folders is None:
            return spec if length == len(parts) else None
    return spec


def _main_module() -> ModuleType:
    main = ModuleType("__main__")
    vars(main)["__loader__"] = BuiltinImporter  # `python -m` imports packages before it has its own.
    if sys.version_info < (3, 14):
        vars(main)["__annotations__"] = {}
    vars(main)["__builtins__"] = builtins
    return main
