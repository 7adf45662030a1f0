"""What MLflow is told of a model's files, and what the handlers of models share."""

from __future__ import annotations

import dis
import hashlib
import importlib
import inspect
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import CodeType, FunctionType, ModuleType
from typing import Any

from trackdsl._core.redaction import is_secret, mask_text
from trackdsl.handlers._line import digest_of, line_of
from trackdsl.handlers._registry import Scalar, handler_for
from trackdsl.handlers.pickled import Pickled

#: What MLflow adds to a model's folder, see mlflow/models/model.py and mlflow/utils/environment.py.
ADDED_BY_MLFLOW = frozenset(
    ["MLmodel", "conda.yaml", "python_env.yaml", "requirements.txt", "constraints.txt", "input_example.json",
     "serving_input_example.json", "registered_model_meta", "environment_variables.txt", "metadata"]
)  # fmt: skip
_PLAIN = (bool, int, float, str, type(None))
_MAX_SUMMARY = 500
_MAX_ARGUMENT = 200
_REQUIRED = object()
_defaults: dict[type, tuple[dict[str, Any], bool]] = {}


@dataclass(frozen=True)
class Flavor:
    """How MLflow loads a model that a handler has written.

    Attributes:
        name: the flavour: `sklearn`, `xgboost`, …, or `python_function` for what is nothing else.
        options: the flavour's section in the `MLmodel` file.
        pyfunc: arguments of `mlflow.pyfunc.add_to_model`; None where the model cannot be loaded as one.
        packages: names of the packages, as they are imported, that loading it needs.
        note: what was written is not all of the model: what is missing, and why.
    """

    name: str
    options: dict[str, Any]
    pyfunc: dict[str, Any] | None
    packages: tuple[str, ...] = ()
    note: str = ""


#: How estimators may be written.
FORMATS: dict[str, tuple[str, ...]] = {
    "serialization_format": ("cloudpickle", "pickle", "skops"),
    "skops_trusted_types": (),
}


@dataclass(frozen=True)
class Inputs:
    """The data that a fitted model takes, as far as it knows.

    Attributes:
        names: of the columns, in order.
        count: of the columns.
    """

    names: tuple[Any, ...] | None = None
    count: int | None = None


class ModelHandler(Pickled):
    """The base of handlers of models: a model is a folder, and pickled where a single file is asked for."""

    model = True
    #: The model may be called to see what it answers, without being asked to by the user.
    callable_unasked = True

    def inputs(self, value: Any) -> Inputs:
        """The data that a fitted model takes."""
        return Inputs()

    def prepare(self, value: Any, example: Any) -> Any:
        """An example in the form in which MLflow hands data to the model."""
        return example

    def predict(self, copied: Any, example: Any) -> Any:
        """What the model answers; `copied` is a copy that may be changed. None where MLflow could not tell of it."""
        return copied.predict(example)

    def read(self, path: Path) -> Any:
        """See `Handler`: of a folder that `save_model` has written, or of a file."""
        return self.read_folder(path) if path.is_dir() else super().read(path)

    def read_folder(self, folder: Path) -> Any:
        """Read back what `save_model` has written."""
        raise NotImplementedError


def dump(value: Any, path: Path, module: Any = None) -> tuple[str, ...]:
    """Pickle a value: by value where it is defined in `__main__`, unless a module is given that does otherwise.

    Returns:
        the packages that the pickle refers to, as they are imported.
    """
    pickler = noting_pickler(module)
    with open(path, "xb") as file:
        found = pickler(file)
        found.dump(value)
    return tuple(sorted(found.packages))


def write_estimator(
    value: Any, folder: Path, serialization_format: str = "cloudpickle", skops_trusted_types: list[str] | None = None
) -> tuple[str, tuple[str, ...]]:
    """Write an estimator in one of `FORMATS`.

    Returns:
        the name of the file, and the packages that it refers to.

    Raises:
        TypeError: skops trusts not all of it.
    """
    if serialization_format == "skops":
        import skops.io

        skops.io.dump(value, folder / "model.skops")
        missing = set(skops.io.get_untrusted_types(file=folder / "model.skops")).difference(skops_trusted_types or ())
        if missing:
            raise TypeError(f"skops does not trust all of it: pass skops_trusted_types={sorted(missing)}")
        modules = [name.partition(".")[0] for name in skops_trusted_types or ()]
        return "model.skops", ("skops", *modules)
    module = importlib.import_module(serialization_format)
    return "model.pkl", (serialization_format, *dump(value, folder / "model.pkl", module))


def read_estimator(folder: Path) -> Any:
    """Read what `write_estimator` has written, and whose hash has been checked."""
    path = folder / "model.skops"
    if not path.exists():
        return load_pickle(folder / "model.pkl")
    import skops.io

    return skops.io.load(path, trusted=skops.io.get_untrusted_types(file=path))


def noting_pickler(module: Any = None) -> Any:
    """The class of a pickler that notes, in `packages`, where what it pickles comes from.

    Args:
        module: the module whose pickler it is; cloudpickle by default.
    """
    base: Any = (module or importlib.import_module("cloudpickle")).Pickler

    class Noting(base):  # type: ignore[misc]
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            self.packages: set[str] = set()
            super().__init__(*args, **kwargs)

        def reducer_override(self, obj: Any) -> Any:
            if isinstance(obj, FunctionType) and (obj.__module__ == "__main__" or "<" in obj.__qualname__):
                # It is pickled by value, and may import something when it is called.
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
    found = {each.argval.partition(".")[0] for each in dis.get_instructions(code) if each.opname == "IMPORT_NAME"}
    return found.union(*(_imported_in(each) for each in code.co_consts if isinstance(each, CodeType))) - {""}


def load_pickle(path: Path) -> Any:
    """Load a pickle whose hash has been checked."""
    import pickle

    with open(path, "rb") as file:
        return pickle.load(file)  # noqa: S301 - the caller has checked its hash, and was asked to


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


def constructor_summary(value: Any) -> Scalar:
    """An object in one line: its class, with the arguments of its constructor that are not as they would be by default.

    An object that is such a parameter is described in the same way.
    """
    kind = type(value)
    try:
        shown = [f"{name}={text}" for name, text in _arguments(value) if text is not None]
    except Exception:  # An estimator of the user's, whose attributes may do anything.
        shown = []
    text = mask_text(f"{kind.__name__}({', '.join(shown)})")
    return text if len(text) <= _MAX_SUMMARY else f"{text[:_MAX_SUMMARY]}…, digest {digest_of(text)}"


def _arguments(value: Any) -> Iterator[tuple[str, str | None]]:
    known, others = _defaults_of(type(value))
    for name, default in known.items():
        yield name, _shown(name, getattr(value, name, default), default)
    if others and hasattr(value, "get_params"):  # XGBoost and LightGBM take whatever their libraries have.
        for name, found in value.get_params(deep=False).items():
            if name not in known:
                yield name, _shown(name, found, None)


def _defaults_of(kind: type) -> tuple[dict[str, Any], bool]:
    """The parameters of a class's constructor by name, with their defaults, and whether it takes others too."""
    known = _defaults.get(kind)
    if known is None:
        if len(_defaults) >= 1000:  # Of a program that makes classes all the time, none must be kept for ever.
            _defaults.clear()
        known = _defaults[kind] = _signature(kind)
    return known


def _signature(kind: type) -> tuple[dict[str, Any], bool]:
    found: dict[str, Any] = {}
    others = True
    for base in kind.__mro__[:-1]:
        if base is not kind and "__init__" not in vars(base):
            continue
        parameters = list(inspect.signature(base).parameters.values())
        for parameter in parameters:
            if parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
                found.setdefault(
                    parameter.name, _REQUIRED if parameter.default is parameter.empty else parameter.default
                )
        others = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters)
        if not others:  # Those of its base classes are not its own.
            break
    return found, others


def _shown(name: str, found: Any, default: Any) -> str | None:
    """The text of an argument; None where it is as by default, is a secret, or nothing is known of it."""
    if found is default or is_secret(name, found):
        return None
    if type(found) in _PLAIN:
        return None if type(default) in _PLAIN and _same(found, default) else repr(found)[:100]
    handler = handler_for(type(found))
    if hasattr(found, "get_params") and not isinstance(found, type):
        return str(handler.summary(found)).removesuffix("()")
    if type(found) is list and found and all(type(item) is tuple and len(item) >= 2 for item in found[:20]):
        return f"[{', '.join(map(_step, found[:20]))}]"
    if handler is handler_for(object):
        return type(found).__name__
    text = line_of(found, _MAX_ARGUMENT)[0]
    return None if type(found) is type(default) and text == line_of(default, _MAX_ARGUMENT)[0] else text


def _step(item: tuple[Any, ...]) -> str:
    """A step of a pipeline, or a part of what transforms columns, with the names of those."""
    text = _shown("", item[1], None) or str(item[1])
    return f"{text} {line_of(item[2], _MAX_ARGUMENT)[0]}" if len(item) > 2 else text


def _same(one: Any, other: Any) -> bool:
    return bool(one == other or (one != one and other != other))
