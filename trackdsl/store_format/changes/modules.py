"""The modules of a project, parsed and never executed: what they define and what they import."""

from __future__ import annotations

import ast
import os
import re
import stat
import tokenize
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from types import CodeType

#: Larger files are data, in bytes.
_LONGEST = 1 << 20
#: How many files of a project are parsed.
_MOST_MODULES = 400
#: Folders of installed packages, and of Python itself.
_INSTALLED = re.compile(r"[/\\](?:site|dist)-packages(?:[/\\]|$)|[/\\]lib(?:64)?[/\\]python3[^/\\]*(?:[/\\]|$)|\.zip$")
#: Functions of this package are used by every program, and are not part of the project.
_OWN = "trackdsl"

#: Python raises these for files that are not valid Python, also for files that were damaged on purpose.
_NO_PYTHON = (SyntaxError, ValueError, RecursionError, MemoryError)

Function = ast.FunctionDef | ast.AsyncFunctionDef
#: The module that a name is imported from, and the name there; None for the module itself.
Imported = tuple[str, str | None]


@dataclass
class Module:
    """A module of the project.

    Attributes:
        path: its file.
        name: the name under which it is imported.
        edited: when its file was last changed, in nanoseconds since 1970.
        lines: of its file, with their line breaks.
        tree: its syntax.
    """

    path: str
    name: str
    edited: int
    lines: list[str]
    tree: ast.Module
    stars: list[str] = field(default_factory=list)

    @cached_property
    def codes(self) -> list[CodeType]:
        """The code objects of its functions, also of those inside others."""
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                waiting = [compile(self.tree, self.path, "exec", dont_inherit=True)]
        # What can be parsed may still not be Python, such as a `return` outside of a function in a file being edited.
        except _NO_PYTHON:
            return []
        found: list[CodeType] = []
        while waiting:
            inside = [const for const in waiting.pop().co_consts if isinstance(const, CodeType)]
            found += inside
            waiting += inside
        return found

    @cached_property
    def functions(self) -> dict[tuple[int, str], Function]:
        """Its functions by the line that they begin in, as their code objects have it, and their names."""
        return {(begin_of(node), node.name): node for node in ast.walk(self.tree) if isinstance(node, Function)}

    @cached_property
    def definitions(self) -> dict[str, ast.stmt]:
        """The functions, classes and assignments at its top level, by name; the last of a name counts."""
        found: dict[str, ast.stmt] = {}
        for node in _statements(self.tree.body):
            if isinstance(node, (Function, ast.ClassDef)):
                found[node.name] = node
            elif isinstance(node, (ast.Assign, ast.AnnAssign)):
                targets = node.targets if isinstance(node, ast.Assign) else [node.target]
                names = (one.id for target in targets for one in ast.walk(target) if isinstance(one, ast.Name))
                found.update(dict.fromkeys(names, node))
        return found

    @cached_property
    def registered(self) -> dict[tuple[str, ...], list[tuple[str, ast.stmt]]]:
        """What its top level registers with a function, as with `singledispatch`, by the dotted name of that.

        Each has a name of its own, because most implementations are called `_`. Calls such as `show.register(int, hex)`
        count too.
        """
        found: dict[tuple[str, ...], list[tuple[str, ast.stmt]]] = {}
        for node in _statements(self.tree.body):
            for names, texts in _registers(node).items():
                typed = "" if any("(" in text for text in texts) else f"({ast.unparse(getattr(node, 'args', node))})"
                found.setdefault(names, []).append((f"{'.'.join([*names, *texts])}{typed}", node))
        return found

    @cached_property
    def imported_modules(self) -> list[str]:
        """The names of the modules that it may import, also those of packages and of what may be a module in one."""
        found: dict[str, None] = {}
        for node in ast.walk(self.tree):
            names: list[str] = []
            if isinstance(node, ast.Import):
                names = [one.name for one in node.names]
            elif isinstance(node, ast.ImportFrom):
                source = self._absolute(node.module or "", node.level)
                names = [source, *(f"{source}.{one.name}" for one in node.names)]
            for name in names:
                parts = name.split(".")
                found.update(dict.fromkeys(".".join(parts[:length]) for length in range(1, len(parts) + 1)))
        return [*found]

    @cached_property
    def imports(self) -> dict[str, Imported]:
        """The imports at its top level, by the names that they bind."""
        return self.imported_by(*_statements(self.tree.body))

    def imported_by(self, *nodes: ast.AST) -> dict[str, Imported]:
        """The imports of some statements, by the names that they bind."""
        found: dict[str, Imported] = {}
        for node in nodes:
            if isinstance(node, ast.Import):
                for one in node.names:
                    found[one.asname or one.name.partition(".")[0]] = (
                        one.name if one.asname else one.name.partition(".")[0],
                        None,
                    )
            elif isinstance(node, ast.ImportFrom):
                source = self._absolute(node.module or "", node.level)
                for one in node.names:
                    if one.name == "*":
                        self.stars.append(source)
                    else:
                        found[one.asname or one.name] = source, one.name
        return found

    def text(self, node: ast.stmt) -> str:
        """The source of a definition, with its decorators."""
        return "".join(self.lines[begin_of(node) - 1 : node.end_lineno])

    def _absolute(self, name: str, level: int) -> str:
        if not level:
            return name
        is_package = os.path.basename(self.path) == "__init__.py"
        around = self.name.split(".")
        kept = around[: len(around) - level + is_package]
        return ".".join([*kept, name] if name else kept)


class Modules:
    """The modules of a project, as far as they are asked for.

    Args:
        folders: where the program looks for modules (`sys.path`); installed packages are left out.

    Attributes:
        newest: when the last of those that were read was edited, in nanoseconds since 1970.
    """

    def __init__(self, folders: Sequence[str]) -> None:
        self._folders = [folder for folder in dict.fromkeys(folders) if not _INSTALLED.search(folder)]
        self._by_path: dict[str, Module | None] = {}
        self.newest = 0

    def at(self, path: str) -> Module | None:
        """The module in a file; None if it cannot be read or parsed, or does not belong to the project."""
        if _INSTALLED.search(path):
            return None
        known = self._by_path.get(path)
        found = known if known is not None and known.edited == _edited(path) else None
        if found is None and (path not in self._by_path or known is not None):
            if len(self._by_path) >= _MOST_MODULES:
                return None
            self._by_path[path] = found = _parsed(path, self._name_of(path))
            self.newest = max(self.newest, 0 if found is None else found.edited)
        return found

    def named(self, name: str) -> Module | None:
        """The module that a program imports by a name; None if it is not one of the project."""
        if not name or name.partition(".")[0] == _OWN:
            return None
        inside = name.replace(".", os.sep)
        for folder in self._folders:
            for path in (os.path.join(folder, inside, "__init__.py"), os.path.join(folder, f"{inside}.py")):
                if os.path.isfile(path):
                    return self.at(path)
        return None

    def add_folder(self, folder: str) -> None:
        """Also look for modules in this folder."""
        if folder not in self._folders and not _INSTALLED.search(folder):
            self._folders.append(folder)

    def _name_of(self, path: str) -> str:
        parts = [os.path.basename(path).removesuffix(".py")]
        folder = os.path.dirname(path)
        while os.path.isfile(os.path.join(folder, "__init__.py")) and os.path.dirname(folder) != folder:
            parts.insert(0, os.path.basename(folder))
            folder = os.path.dirname(folder)
        self.add_folder(folder)
        return ".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts)


def begin_of(node: ast.stmt) -> int:
    """The line that a definition begins in, with its decorators."""
    decorators: list[ast.expr] = getattr(node, "decorator_list", [])
    return min([node.lineno, *(one.lineno for one in decorators)])


def _statements(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    """Statements, and those in their branches."""
    for node in body:
        yield node
        if isinstance(node, (ast.If, ast.Try, ast.With)):
            for inside in ("body", "orelse", "finalbody"):
                yield from _statements(getattr(node, inside, []))
            for handler in getattr(node, "handlers", []):
                yield from _statements(handler.body)


def _registers(node: ast.stmt) -> dict[tuple[str, ...], list[str]]:
    """The decorators `@name.register` and `@name.register(…)`, or calls of it, without the name, by the name."""
    written = node.decorator_list if isinstance(node, (Function, ast.ClassDef)) else []
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
        written = [node.value]
    found: dict[tuple[str, ...], list[str]] = {}
    for one in written:
        called: ast.expr = one
        while isinstance(called, ast.Call):
            called = called.func
        if isinstance(called, ast.Attribute) and called.attr == "register" and (names := _dotted(called.value)):
            found.setdefault(names, []).append(ast.unparse(one).removeprefix(f"{'.'.join(names)}."))
    return found


def _dotted(node: ast.expr) -> tuple[str, ...]:
    """The parts of a dotted name; nothing for other expressions."""
    names: list[str] = []
    while isinstance(node, ast.Attribute):
        names.insert(0, node.attr)
        node = node.value
    return (node.id, *names) if isinstance(node, ast.Name) else ()


def _edited(path: str) -> int:
    try:
        return os.stat(path).st_mtime_ns
    except (OSError, ValueError):
        return 0


def _parsed(path: str, name: str) -> Module | None:
    try:
        found = os.stat(path)
        if not stat.S_ISREG(found.st_mode) or found.st_size > _LONGEST:
            return None
        with tokenize.open(path) as file:
            lines = file.readlines()
        if lines and not lines[-1].endswith("\n"):  # As `linecache`, whose lines were hashed.
            lines[-1] += "\n"
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return Module(path, name, found.st_mtime_ns, lines, ast.parse("".join(lines)))
    except (OSError, *_NO_PYTHON):
        return None
