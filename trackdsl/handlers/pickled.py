"""Anything → cloudpickle. Nothing is ever unpickled unasked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from trackdsl.handlers._registry import Handler, Scalar, class_name, is_array_like, offers

_PLAIN = (bool, int, float, str, type(None))


class Pickled(Handler):
    """The base of handlers whose values have no file format of their own."""

    suffix = ".pkl"
    executes = True

    def write(self, value: Any, path: Path) -> None:
        """See `Handler`."""
        import cloudpickle

        with open(path, "xb") as file:
            cloudpickle.dump(value, file)

    def read(self, path: Path) -> Any:
        """See `Handler`."""
        import pickle

        with open(path, "rb") as file:
            return pickle.load(file)  # noqa: S301 - the caller has checked its hash, and was asked to


class _Anything(Pickled):
    def summary(self, value: Any) -> Scalar:
        """The number in what looks like a NumPy scalar or a 0-d array; else the class name."""
        kind = type(value)
        if is_array_like(kind) and offers(kind, "item") and value.shape == ():
            item = value.item()
            if type(item) in _PLAIN:
                return item  # type: ignore[no-any-return]
        return class_name(value)


handler = _Anything()
