"""The parts of one returned value, told apart: numbers, structures, models, everything else."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from trackdsl import _artifacts
from trackdsl._datasets import record_input
from trackdsl._record import append_tags, record_metrics, to_number
from trackdsl._run import Run
from trackdsl._secrets import is_secret_name
from trackdsl.handlers._registry import handler_for, handler_of

_MAX_DEPTH = 20


class Found:
    """What was found in one returned value: numbers are gathered for one event, files are written as they come.

    Args:
        run: where everything lands.
        prefix: put before every name.
        step: of the metrics and models.
        arguments: gives the call's arguments by name.
    """

    def __init__(self, run: Run, prefix: str, step: int, arguments: Callable[[], Mapping[str, Any]]) -> None:
        self.run = run
        self.metrics: dict[str, Any] = {}
        self._prefix = prefix
        self._step = step
        self._arguments = arguments

    def keep(self, place: str | None, value: Any, name: str = "", *, as_model: bool = True) -> None:
        """Keep a value as a file, at `place` or under its name; a model as a model, unless it has a place."""
        if is_secret_name(name.rpartition("/")[2]):
            append_tags(self.run, {f"trackdsl.omitted.{name}": "its name is that of a secret"})
            return
        if isinstance(value, Path) and value.exists():
            _artifacts.snapshot(self.run, value, place)
            return
        handler = handler_of(value)
        if handler.model and place is None and as_model:
            self.keep_model(value, name, None)
            return
        if isinstance(value, complex):
            append_tags(self.run, {f"trackdsl.omitted.{name}": f"{value} is complex, which no metric can be"})
        _artifacts.keep_object(self.run, place or f"{self._prefix}{name}{handler.suffix}", value, handler)

    def keep_model(self, value: Any, name: str, registered_model_name: str | None) -> None:
        """Keep a value as a model, whose input example is one of the call's arguments."""
        from trackdsl._models import record_model  # It brings what a program without models need not wait for.

        record_model(
            self.run,
            value,
            f"{self._prefix}{name}",
            registered_model_name=registered_model_name,
            arguments=self._arguments(),
            step=self._step,
        )

    def keep_dataset(self, value: Any, name: str, context: str | None) -> None:
        """Keep a value as a file, and tell of it as a dataset of the run."""
        self.keep(None, value, name)
        record_input(self.run, value, name, context)

    def write(self) -> None:
        """Write the numbers."""
        if self.metrics:
            prefix = self._prefix
            named = {prefix + name: value for name, value in self.metrics.items()} if prefix else self.metrics
            record_metrics(self.run, named, self._step)


class Numbers(Found):
    """The numbers alone: whatever is no number is passed over."""

    def keep(self, place: str | None, value: Any, name: str = "", *, as_model: bool = True) -> None:
        """Pass over."""

    def keep_model(self, value: Any, name: str, registered_model_name: str | None) -> None:
        """Pass over."""

    def keep_dataset(self, value: Any, name: str, context: str | None) -> None:
        """Pass over."""


def is_number(value: Any) -> bool:
    """Whether a value is something that a metric can hold: also NumPy scalars, 0-d arrays and tensors, decimals."""
    kind = type(value)
    if kind is float or kind is int or kind is bool:
        return True
    if isinstance(value, (int, float)):
        return True
    # Recognised by what they offer, not by their library.
    if getattr(value, "shape", None) == () or hasattr(value, "as_integer_ratio"):
        try:
            to_number(value)
        except Exception:
            return False
        return True
    return False


def is_mapping(value: Any) -> bool:
    """Whether a value has named parts, each of which is recorded by itself."""
    kind = type(value)
    if kind is dict:
        return True
    if kind is list or kind is tuple:
        return False
    return handler_for(kind).children(value) is not None


def leaves(value: Any, prefix: str, around: tuple[int, ...] = ()) -> Iterator[tuple[str, Any]]:
    """The parts of a structure that are none themselves, by their names joined with `/`."""
    for key, leaf in (handler_for(type(value)).children(value) or {}).items():
        name = f"{prefix}{key}"
        if is_secret_name(str(key)) or len(around) >= _MAX_DEPTH or not is_mapping(leaf):
            yield name, leaf
        elif id(leaf) not in around and leaf is not value:  # One that holds itself has been told already.
            yield from leaves(leaf, f"{name}/", (*around, id(value)))
