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
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from trackdsl.errors import told

#: Where MLflow looks for a model's code, in its folder.
FOLDER = "code"
#: A larger package goes without its data, in bytes and files; code that is larger does not go.
_MAX_BYTES = 20 << 20
_MAX_FILES = 2000
_INSTALLED = ("site-packages", "dist-packages")
#: What is no part of a package, though it lies in its folder; and everything whose name begins with a dot.
_PASSED_OVER = frozenset(["__pycache__", "mlruns", "mlartifacts", "node_modules", "venv", "env"])
_OWN = frozenset(["__main__", "trackdsl"])


@dataclass
class Code:
    """What was found.

    Attributes:
        places: files and folders of the project's own modules, by the names that they are imported by.
        packages: what they import of others.
        omitted: modules that are left out, with the reasons.
    """

    places: dict[str, Path] = field(default_factory=dict)
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
        if name in seen or name in sys.stdlib_module_names:
            continue
        seen.add(name)
        place = _place_of(name)
        if place is None:
            found.packages.add(name)
        elif not any(place.is_relative_to(root) for root in roots):
            found.omitted[name] = f"{place} is outside of the project: pass code_paths=[{str(place)!r}]"
        else:
            found.places[name] = place
            waiting += _imported_by(place)
    found.packages = {name for name in found.packages if name in sys.modules}
    return found


def copy_code(places: Iterable[Path], folder: Path) -> dict[str, str]:
    """Copy modules and packages.

    Args:
        places: files and folders.
        folder: the model's folder.

    Returns:
        what is left out, by its path, with the reasons.
    """
    omitted = {}
    for place in places:
        try:
            _copy(place, folder / FOLDER / place.name)
        except (OSError, ValueError) as error:
            omitted[str(place)] = told(error)
    return omitted


def _copy(source: Path, target: Path) -> None:
    files = [source] if source.is_file() else list(_files_of(source))
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


def _is_large(files: list[Path]) -> bool:
    return len(files) > _MAX_FILES or sum(path.stat().st_size for path in files) > _MAX_BYTES


def _files_of(folder: Path) -> Iterator[Path]:
    for directory, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not _is_passed_over(name))
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
        marked = (
            each for each in (folder, *folder.parents) if (each / "pyproject.toml").exists() or (each / ".git").exists()
        )
        found.append(next(marked, folder).resolve())
    return found


def _place_of(name: str) -> Path | None:
    """Where a module or package of the user's lies; None for one that was installed, or is in no file."""
    module = sys.modules.get(name)
    spec = getattr(module, "__spec__", None)
    try:
        spec = spec or importlib.util.find_spec(name)
    except (ImportError, ValueError, AttributeError):
        return None
    if spec is None:
        return None
    places = list(spec.submodule_search_locations or ()) or [spec.origin or ""]
    for text in places:
        place = Path(text)
        if place.is_absolute() and place.exists() and not _is_installed(place):
            return place.resolve()
    return None


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
    return found
