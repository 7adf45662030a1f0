"""What loading a model needs: the installed versions of the packages that it refers to."""

from __future__ import annotations

import contextlib
import functools
import importlib.metadata
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from trackdsl._core.redaction import mask_text

#: Packages whose distribution has another name, so that the search below is seldom needed.
_DISTRIBUTIONS = {"sklearn": "scikit-learn"}


def requirements(packages: Iterable[str], asked: Sequence[str] | str | os.PathLike[str] | None = None) -> list[str]:
    """The requirements of a model.

    Args:
        packages: what it refers to, as it is imported.
        asked: what the user wants instead: requirements, or the path of a file of them.
    """
    if isinstance(asked, (str, os.PathLike)):
        asked = Path(asked).read_text(encoding="utf-8").splitlines()
    if asked is not None:
        return [mask_text(str(line)) for line in asked]
    return list(dict.fromkeys(filter(None, map(pinned, ["mlflow", *sorted(packages)]))))


def build_requirements() -> list[str]:
    """What installing those needs: pip first, and the others where they are installed."""
    found = []
    for name in ("pip", "setuptools", "wheel"):
        try:
            found.append(_requirement(name))
        except importlib.metadata.PackageNotFoundError:
            found += ["pip"] if name == "pip" else []
    return found


@functools.lru_cache(maxsize=1000)
def pinned(package: str) -> str | None:
    """The requirement of the installed version of a package; None for what no index has, as one's own modules."""
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
    # Without what is behind the plus, which no index has: `2.4.0+cpu`.
    return f"{distribution}=={importlib.metadata.version(distribution).partition('+')[0]}"


def _is_installed(package: str) -> bool:
    """Whether a package lies where installers put it; a folder of one's own may have the name of any distribution."""
    module = sys.modules.get(package)
    if module is None:
        return True
    places = [*getattr(module, "__path__", ()), getattr(module, "__file__", None) or ""]
    return any("site-packages" in place or "dist-packages" in place for place in places)


@functools.cache
def _distributions() -> Mapping[str, Sequence[str]]:
    # It reads the list of files of everything that is installed.
    return importlib.metadata.packages_distributions()
