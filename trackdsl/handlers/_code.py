"""Copy the project's own modules that a model needs, because other machines could not import them.

A pickle contains the names of modules, not their code. Modules that were not installed are copied into the model, with
the modules that they import. Packages are copied completely, because they may read files in their folder.
"""

from __future__ import annotations

import ast
import importlib.util
import os
import shutil
import sys
import sysconfig
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from trackdsl._core.redaction import is_secret_name
from trackdsl.errors import format_error, reraise_from_signal

#: The folder for code inside the folder of a model at MLflow.
FOLDER = "code"
#: If a package is larger, only its `.py` files are copied. If these are larger too, the package is left out.
_MAX_BYTES = 20 << 20
_MAX_FILES = 2000
_INSTALLED = ("site-packages", "dist-packages")
#: Folders that are never copied; neither is anything whose name begins with a dot.
_EXCLUDED = frozenset(["__pycache__", "mlruns", "mlartifacts", "node_modules"])
#: Suffixes of files with private keys.
_KEYS = (".pem", ".key", ".p12", ".pfx", ".jks")
#: A file in the folder of every virtual environment. The name `env` alone says little: it may be a package.
_ENVIRONMENT = "pyvenv.cfg"
#: Files and folders that mark the top folder of a project.
_MARKS = ("pyproject.toml", "setup.py", "setup.cfg", ".git")
_OWN = frozenset(["__main__", "trackdsl"])


@dataclass
class Code:
    """The modules that a model needs.

    Attributes:
        paths: files and folders of the project's own modules, each with the name under which it is imported.
        packages: the installed packages that they import.
        omitted: modules that are left out, with the reasons.
    """

    paths: dict[Path, str] = field(default_factory=dict)
    packages: set[str] = field(default_factory=set)
    omitted: dict[str, str] = field(default_factory=dict)


def local_code(names: Iterable[str]) -> Code:
    """Find the project's own modules among those that a model refers to, and the modules that they import.

    Args:
        names: the names of top-level modules and packages.
    """
    code = Code()
    roots = _project_folders()
    waiting, seen = list(names), set(_OWN)
    while waiting:
        name = waiting.pop()
        if name in seen:
            continue
        seen.add(name)
        paths = _paths_of(name)
        if not paths:
            code.packages.add(name)
        for path in paths:
            if any(path.is_relative_to(root) for root in roots):
                # The file may have another name than the module, for example if it is the target of a link.
                code.paths[path] = name if path.is_dir() else name + "".join(path.suffixes)
                waiting += _imported_by(path)
            else:
                code.omitted[name] = f"{path} is outside of the project: pass code_paths=[{str(path)!r}]"
    code.packages = {name for name in code.packages if name in sys.modules}
    return code


def copy_code(paths: Mapping[Path, str], folder: Path) -> dict[str, str]:
    """Copy modules and packages.

    Args:
        paths: files and folders, with their names in the model.
        folder: the folder of the model.

    Returns:
        the paths that are left out, with the reasons.
    """
    omitted = {}
    for path, name in paths.items():
        try:
            withheld = _copy(path, folder / FOLDER / name)
        except (OSError, ValueError) as error:
            reraise_from_signal(error)
            omitted[str(path)] = format_error(error)
        else:
            omitted |= {str(secret): "its name looks like that of a secret" for secret in withheld}
    return omitted


def _copy(source: Path, target: Path) -> list[Path]:
    """Copy a module or package, and return the files that are left out because of names like those of secrets."""
    files, withheld = [source], []
    if source.is_dir():
        inside = list(_files_of(source))
        withheld = [path for path in inside if _looks_secret(path)]
        files = [path for path in inside if path not in withheld]
    if _is_large(files):
        files = [path for path in files if path.suffix == ".py"]
    if _is_large(files):
        raise ValueError(f"it has over {_MAX_FILES} files or {_MAX_BYTES >> 20} MiB")
    if not files:
        raise FileNotFoundError(2, "there is no such file or folder", str(source))
    for path in files:
        to = target if path == source else target / path.relative_to(source)
        to.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, to)
    return withheld


def _looks_secret(path: Path) -> bool:
    return path.suffix in _KEYS or (path.suffix != ".py" and is_secret_name(path.stem))


def _is_large(files: list[Path]) -> bool:
    return len(files) > _MAX_FILES or sum(path.stat().st_size for path in files) > _MAX_BYTES


def _files_of(folder: Path) -> Iterator[Path]:
    for directory, folders, files in os.walk(folder):
        folders[:] = sorted(
            name for name in folders if not _is_excluded(name) and not Path(directory, name, _ENVIRONMENT).exists()
        )
        for name in sorted(files):
            path = Path(directory, name)
            if not _is_excluded(name) and path.suffix != ".pyc" and path.is_file():
                yield path


def _is_excluded(name: str) -> bool:
    return name.startswith(".") or name in _EXCLUDED


def _project_folders() -> list[Path]:
    """The top folders of the projects of the program's file and of the working directory."""
    main = getattr(sys.modules.get("__main__"), "__file__", None)
    folders = [Path.cwd(), *([Path(main).resolve().parent] if main else [])]
    projects = []
    for folder in folders:
        marked = (each for each in (folder, *folder.parents) if any((each / mark).exists() for mark in _MARKS))
        projects.append(next(marked, folder).resolve())
    return projects


def _paths_of(name: str) -> list[Path]:
    """The paths of a module or package of the user; empty for an installed one. A package may have several folders."""
    module = sys.modules.get(name)
    if module is None and name in sys.stdlib_module_names:
        return []
    spec = getattr(module, "__spec__", None)
    try:
        spec = spec or importlib.util.find_spec(name)
    except (ImportError, ValueError, AttributeError):
        return []
    if spec is None:
        return []
    paths = map(Path, list(spec.submodule_search_locations or ()) or [spec.origin or ""])
    return [path.resolve() for path in paths if path.is_absolute() and path.exists() and not _is_installed(path)]


def _is_installed(path: Path) -> bool:
    if not _INSTALL_FOLDERS.isdisjoint([*path.parents, *path.resolve().parents]):
        return True
    return not set(_INSTALLED).isdisjoint(path.parts)


_INSTALL_FOLDERS = frozenset(Path(sysconfig.get_path(name)) for name in ("stdlib", "platstdlib", "purelib", "platlib"))


def _imported_by(path: Path) -> set[str]:
    """The top-level modules that a module or package imports, also inside functions."""
    modules: set[str] = set()
    for file in [path] if path.is_file() else list(_files_of(path))[:_MAX_FILES]:
        if file.suffix != ".py":
            continue
        try:
            tree = ast.parse(file.read_bytes())
        except (SyntaxError, ValueError, RecursionError):  # For example, code for another version of Python.
            continue
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                modules.update(alias.name.partition(".")[0] for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and not node.level and node.module:
                modules.add(node.module.partition(".")[0])
            elif isinstance(node, ast.Call) and (name := _imported_by_call(node)):
                modules.add(name.partition(".")[0])
    return modules


def _imported_by_call(call: ast.Call) -> str:
    """The module in `importlib.import_module("name")`; empty for any other call, and if the name is computed."""
    function, first = call.func, call.args[0] if call.args else None
    named = function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")
    if named not in ("import_module", "__import__") or not isinstance(first, ast.Constant):
        return ""
    return first.value if isinstance(first.value, str) else ""
