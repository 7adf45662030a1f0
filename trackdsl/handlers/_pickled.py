"""`Pickled`, the base class of handlers whose values have no file format of their own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from trackdsl.handlers._handler import Handler

#: Why a value is shown by one line instead of its content.
NOT_READ = "its data is not in memory, and was not read"


class Pickled(Handler):
    """The base class of handlers that write values with cloudpickle."""

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
            return pickle.load(file)  # noqa: S301 - the user passed `trusted=True`, and the hash was checked
