"""The decorators that the tests here compare, and what they decorate."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from trackdsl import experiment, stage, track_returns

DECORATORS: dict[str, Callable[[Any], Any]] = {
    "undecorated": lambda fn: fn,
    "stage": stage,
    "section": stage(nested=False),
    "experiment": experiment,
    "track_returns": track_returns,
    "stage and track_returns": lambda fn: stage(track_returns(fn)),
}
DECORATED = {name: decorator for name, decorator in DECORATORS.items() if name != "undecorated"}

Decorator = Callable[[Any], Any]


class Weights:
    """Has an attribute that changes, and is called."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, *values: Any) -> tuple[Any, ...]:
        """Give back what is given."""
        self.calls += 1
        return values

    def reset(self) -> None:
        """Start again."""
        self.calls = 0


def give(*values: Any) -> tuple[Any, ...]:
    return values
