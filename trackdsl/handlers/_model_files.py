"""Write and read the files of models: pickles, skops files, and the hash over all files of a model."""

from __future__ import annotations

import dis
import hashlib
import importlib
import inspect
from pathlib import Path
from types import CodeType, FunctionType, ModuleType
from typing import Any

from trackdsl.handlers._flavor import ADDED_BY_MLFLOW


def dump(value: Any, path: Path, module: Any = None) -> tuple[str, ...]:
    """Pickle a value, and find the packages that the pickle refers to.

    Args:
        value: the value.
        path: the new file.
        module: the module whose `Pickler` is used; cloudpickle by default, which copies code from `__main__`.

    Returns:
        the import names of these packages.
    """
    pickler = noting_pickler(module)
    with open(path, "xb") as file:
        pickling = pickler(file)
        pickling.dump(value)
    return tuple(sorted(pickling.packages))


def write_estimator(
    value: Any, folder: Path, serialization_format: str = "cloudpickle", skops_trusted_types: list[str] | None = None
) -> tuple[str, tuple[str, ...]]:
    """Write an estimator in one of `FORMATS`.

    Returns:
        the name of the file, and the import names of the packages that it refers to.

    Raises:
        TypeError: skops does not trust all types in it.
    """
    if serialization_format == "skops":
        import skops.io

        skops.io.dump(value, folder / "model.skops")
        missing = set(skops.io.get_untrusted_types(file=folder / "model.skops")).difference(skops_trusted_types or ())
        if missing:
            raise TypeError(f"skops does not trust all types in the model: pass skops_trusted_types={sorted(missing)}")
        modules = [name.partition(".")[0] for name in skops_trusted_types or ()]
        return "model.skops", ("skops", *modules)
    module = importlib.import_module(serialization_format)
    return "model.pkl", (serialization_format, *dump(value, folder / "model.pkl", module))


def read_estimator(folder: Path) -> Any:
    """Read an estimator that `write_estimator` has written. The caller has checked its hash."""
    path = folder / "model.skops"
    if not path.exists():
        return load_pickle(folder / "model.pkl")
    import skops.io

    return skops.io.load(path, trusted=skops.io.get_untrusted_types(file=path))


def noting_pickler(module: Any = None) -> Any:
    """A pickler class that collects in `packages` which packages the pickled objects come from.

    Args:
        module: the module of the base class; cloudpickle by default.
    """
    base: Any = (module or importlib.import_module("cloudpickle")).Pickler

    class Noting(base):  # type: ignore[misc]
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            self.packages: set[str] = set()
            super().__init__(*args, **kwargs)

        def reducer_override(self, obj: Any) -> Any:
            if isinstance(obj, FunctionType) and (obj.__module__ == "__main__" or "<" in obj.__qualname__):
                # Its code is pickled too, and may import packages when it runs.
                self.packages.update(_imported_in(obj.__code__))
            if isinstance(obj, ModuleType):
                module: Any = obj.__name__
            else:
                module = getattr(
                    obj if isinstance(obj, type) or inspect.isroutine(obj) else type(obj), "__module__", ""
                )
            if isinstance(module, str):
                self.packages.add(module.partition(".")[0])
            override = getattr(super(), "reducer_override", None)
            return NotImplemented if override is None else override(obj)

    return Noting


def _imported_in(code: CodeType) -> set[str]:
    """The top-level modules that a function imports when it is called."""
    imported = {each.argval.partition(".")[0] for each in dis.get_instructions(code) if each.opname == "IMPORT_NAME"}
    return imported.union(*(_imported_in(each) for each in code.co_consts if isinstance(each, CodeType))) - {""}


def load_pickle(path: Path) -> Any:
    """Load a pickle. The caller has checked its hash."""
    import pickle

    with open(path, "rb") as file:
        return pickle.load(file)  # noqa: S301 - the user passed `trusted=True`, and the hash was checked


def sha256_of_files(folder: Path) -> str:
    """The SHA-256 over the names and contents of a model's files, without those that MLflow adds."""
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*"), key=lambda path: path.relative_to(folder).as_posix()):
        name = path.relative_to(folder)
        if path.is_dir() or name.parts[0] in ADDED_BY_MLFLOW or "__pycache__" in name.parts:
            continue
        part = hashlib.sha256()
        with open(path, "rb") as file:
            while block := file.read(1 << 20):
                part.update(block)
        digest.update(f"{name.as_posix()}\0{part.hexdigest()}\n".encode())
    return digest.hexdigest()
