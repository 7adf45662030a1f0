"""The requirements of a model: the installed versions of the packages that it refers to."""

from __future__ import annotations

import contextlib
import functools
import importlib.metadata
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from trackdsl._core.redaction import mask_text

#: Common packages whose distribution has another name. Searching for such a name is slow.
_DISTRIBUTIONS = {"sklearn": "scikit-learn"}


def requirements(packages: Iterable[str], asked: Sequence[str] | str | os.PathLike[str] | None = None) -> list[str]:
    """The requirements of a model.

    Args:
        packages: the import names of the packages that it refers to.
        asked: requirements that the user chose instead, or the path of a file of requirements.
    """
    if isinstance(asked, (str, os.PathLike)):
        asked = Path(asked).read_text(encoding="utf-8").splitlines()
    if asked is not None:
        return [mask_text(str(line)) for line in asked]
    return list(dict.fromkeys(filter(None, map(pinned, ["mlflow", *sorted(packages)]))))


def build_requirements() -> list[str]:
    """The requirements for the installation itself: pip, and other build tools if they are installed."""
    lines = []
    for name in ("pip", "setuptools", "wheel"):
        try:
            lines.append(_requirement(name))
        except importlib.metadata.PackageNotFoundError:
            lines += ["pip"] if name == "pip" else []
    return lines


@functools.lru_cache(maxsize=1000)
def pinned(package: str) -> str | None:
    """The requirement for the installed version of a package; None for a module that was not installed."""
    if not package or package in sys.stdlib_module_names or package == "__main__" or not _is_installed(package):
        return None
    for name in (_DISTRIBUTIONS.get(package, package), package):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            return _requirement(name)
    for name in _distributions().get(package, ()):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            return _requirement(name)
    return None


@functools.lru_cache(maxsize=1000)
def _requirement(distribution: str) -> str:
    # A local version such as `2.4.0+cpu` is in no package index, so the part after the plus is removed.
    return f"{distribution}=={importlib.metadata.version(distribution).partition('+')[0]}"


def _is_installed(package: str) -> bool:
    """Whether a package was installed. A folder of the project may have the same name as a distribution."""
    module = sys.modules.get(package)
    if module is None:
        return True
    paths = [*getattr(module, "__path__", ()), getattr(module, "__file__", None) or ""]
    return any("site-packages" in path or "dist-packages" in path for path in paths)


@functools.cache
def _distributions() -> Mapping[str, Sequence[str]]:
    # This reads the file lists of all installed distributions, so the result is cached.
    return importlib.metadata.packages_distributions()
