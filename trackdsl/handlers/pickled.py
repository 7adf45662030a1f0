"""Anything → cloudpickle. Nothing is ever unpickled unasked."""

from __future__ import annotations

from pathlib import Path
from typing import Any


class _Pickled:
    suffix = ".pkl"

    def write(self, value: Any, path: Path) -> None:
        import cloudpickle

        with open(path, "xb") as file:
            cloudpickle.dump(value, file)


handler = _Pickled()
