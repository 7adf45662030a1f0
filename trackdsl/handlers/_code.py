"""The project's own modules that a model needs, copied beside it: elsewhere nothing could import them.

A pickle names modules and holds none. Those that no installer has put where they are go with the model, with what they
import in turn; packages whole, because what a package reads of its folder nobody knows.
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

#: Where MLflow looks for a model's code, in its folder.
FOLDER = "code"
#: A larger package goes without its data, in bytes and files; code that is larger does not go.
_MAX_BYTES = 20 << 20
_MAX_FILES = 2000
_INSTALLED = ("site-packages", "dist-packages")
#: What is no part of a package, though it lies in its folder; and everything whose name begins with a dot.
_PASSED_OVER = frozenset(["__pycache__", "mlruns", "mlartifacts", "node_modules"])
#: Files of private keys.
_KEYS = (".pem", ".key", ".p12", ".pfx", ".jks")
#: In the folder of every virtual environment; a package of simulations may well be called `env`.
_ENVIRONMENT = "pyvenv.cfg"
#: Of these one is where a project begins.
_MARKS = ("pyproject.toml", "setup.py", "setup.cfg", ".git")
_OWN = frozenset(["__main__", "trackdsl"])


@dataclass
class Code:
    """What was found.

    Attributes:
        places: files and folders of the project's own modules, with the names that they must have to be imported.
        packages: what they import of others.
        omitted: modules that are left out, with the reasons.
    """

    places: dict[Path, str] = field(default_factory=dict)
    packages: set[str] = field(default_factory=set)
    omitted: dict[str, str] = field(default_factory=dict)


def local_code(names: Iterable[str]) -> Code:
    """The project's own modules among those that a model refers to, and what they import in turn.

    Args:
        names: of top-level modules and packages.
    """
    found = Code()
    roots = _project()
    waiting, seen = list(names), set(_OWN)
    while waiting:
        name = waiting.pop()
        if name in seen:
            continue
        seen.add(name)
        places = _places_of(name)
        if not places:
            found.packages.add(name)
        for place in places:
            if any(place.is_relative_to(root) for root in roots):
                # Its own name may be another: of what a link leads to, or a script has loaded by its path.
                found.places[place] = name if place.is_dir() else name + "".join(place.suffixes)
                waiting += _imported_by(place)
            else:
                found.omitted[name] = f"{place} is outside of the project: pass code_paths=[{str(place)!r}]"
    found.packages = {name for name in found.packages if name in sys.modules}
    return found


def copy_code(places: Mapping[Path, str], folder: Path) -> dict[str, str]:
    """Copy modules and packages.

    Args:
        places: files and folders, with their names in the model.
        folder: the model's folder.

    Returns:
        what is left out, by its path, with the reasons.
    """
    omitted = {}
    for place, name in places.items():
        try:
            withheld = _copy(place, folder / FOLDER / name)
        except (OSError, ValueError) as error:
            reraise_from_signal(error)
            omitted[str(place)] = format_error(error)
        else:
            omitted |= {str(path): "its name looks like that of a secret" for path in withheld}
    return omitted


def _copy(source: Path, target: Path) -> list[Path]:
    """Copy a module or package; returns the files that are left out, as their names say that they hold secrets."""
    files, withheld = [source], []
    if source.is_dir():
        found = list(_files_of(source))
        withheld = [path for path in found if _looks_secret(path)]
        files = [path for path in found if path not in withheld]
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
            name for name in folders if not _is_passed_over(name) and not Path(directory, name, _ENVIRONMENT).exists()
        )
        for name in sorted(files):
            path = Path(directory, name)
            if not _is_passed_over(name) and path.suffix != ".pyc" and path.is_file():
                yield path


def _is_passed_over(name: str) -> bool:
    return name.startswith(".") or name in _PASSED_OVER


def _project() -> list[Path]:
    """The folders that belong to the project: of the program, and where it runs, from where its project begins."""
    main = getattr(sys.modules.get("__main__"), "__file__", None)
    folders = [Path.cwd(), *([Path(main).resolve().parent] if main else [])]
    found = []
    for folder in folders:
        marked = (each for each in (folder, *folder.parents) if any((each / mark).exists() for mark in _MARKS))
        found.append(next(marked, folder).resolve())
    return found


def _places_of(name: str) -> list[Path]:
    """Where a module or package of the user's lies, which may be several folders; empty for one that was installed."""
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
    places = map(Path, list(spec.submodule_search_locations or ()) or [spec.origin or ""])
    return [place.resolve() for place in places if place.is_absolute() and place.exists() and not _is_installed(place)]


def _is_installed(place: Path) -> bool:
    if not _PLACES.isdisjoint([*place.parents, *place.resolve().parents]):
        return True
    return not set(_INSTALLED).isdisjoint(place.parts)


_PLACES = frozenset(Path(sysconfig.get_path(name)) for name in ("stdlib", "platstdlib", "purelib", "platlib"))


def _imported_by(place: Path) -> set[str]:
    """The top-level modules that a module or package imports, inside functions too."""
    found: set[str] = set()
    for path in [place] if place.is_file() else list(_files_of(place))[:_MAX_FILES]:
        if path.suffix != ".py":
            continue
        try:
            tree = ast.parse(path.read_bytes())
        except (SyntaxError, ValueError, RecursionError):  # Of another version of Python, for example.
            continue
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                found.update(alias.name.partition(".")[0] for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and not node.level and node.module:
                found.add(node.module.partition(".")[0])
            elif isinstance(node, ast.Call) and (name := _imported_by_call(node)):
                found.add(name.partition(".")[0])
    return found


def _imported_by_call(call: ast.Call) -> str:
    """The module in `importlib.import_module("name")`; empty for any other call, and where the name is worked out."""
    function, first = call.func, call.args[0] if call.args else None
    named = function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")
    if named not in ("import_module", "__import__") or not isinstance(first, ast.Constant):
        return ""
    return first.value if isinstance(first.value, str) else ""
