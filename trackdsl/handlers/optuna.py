"""Optuna trials as arguments: their number. The suggested parameters are known only later."""

from __future__ import annotations

from typing import Any

from trackdsl.handlers._handler import Scalar
from trackdsl.handlers._pickled import Pickled


class _Trial(Pickled):
    def content(self, value: Any) -> Any:
        return self.summary(value)

    def summary(self, value: Any) -> Scalar:
        return int(value.number)


trial = _Trial()
