"""The parts of one returned value, told apart: numbers, structures, models, everything else."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterator, Mapping
from pathlib import Path
from typing import Any

from trackdsl import _artifacts
from trackdsl._datasets import record_input
from trackdsl._record import append_tags, record_metrics, to_number
from trackdsl._run import Run
from trackdsl._secrets import is_secret_name, mask_entry, mask_text
from trackdsl.errors import report, told
from trackdsl.handlers._registry import handler_for, handler_of, is_array_like, is_mock, offers
from trackdsl.handlers.json import Repeats, name_of_key

_MAX_DEPTH = 20
#: How many leaves of what stands in a value more than once are told each time.
_MAX_REPEATED = 2000
_MAX_TYPES = 1000


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
        if issubclass(type(value), Path) and _exists(value):
            _artifacts.snapshot(self.run, value, place)
            return
        handler = handler_of(value)
        if handler.model and place is None and as_model:
            self.keep_model(value, name, None)
            return
        if issubclass(type(value), complex):
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

    def add_metric(self, name: str, value: Any) -> None:
        """Gather a number; beside one that has its name already, not in its place."""
        self.metrics[free_name(name, self.metrics)] = value

    def omit(self, name: str, error: Exception) -> None:
        """Say that a value is missing, because it raised when it was looked at; the others are not."""
        reason = mask_text(told(error))[:500]
        append_tags(self.run, {f"trackdsl.omitted.{name}": reason})
        report("omitted", f"trackdsl left out {name!r}, which was returned: {reason}", key=f"returned:{name}")

    def cut(self, name: str) -> None:
        """Say that a value holds the same parts over and over, so that not all of it was told."""
        append_tags(self.run, {f"trackdsl.truncated.{name}": "it holds the same parts over and over: told in part"})

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


#: Whether values of a type are numbers; None for one of which only each value can tell.
_numeric: dict[type, bool | None] = {}


def is_number(value: Any) -> bool:
    """Whether a value is something that a metric can hold: also NumPy scalars, 0-d arrays and tensors, decimals."""
    kind = type(value)
    if kind is float or kind is int or kind is bool:
        return True
    try:
        numeric = _numeric[kind]
    except KeyError:
        if len(_numeric) >= _MAX_TYPES:  # Each mock has a class of its own.
            _numeric.clear()
        numeric = _numeric[kind] = _is_numeric(kind)
    if numeric is not None:
        return numeric
    try:
        if is_array_like(kind) and not offers(kind, "as_integer_ratio") and value.shape != ():
            return False
        to_number(value)
    except Exception:
        return False
    return True


def _is_numeric(kind: type) -> bool | None:
    """Recognised by what the type offers, not by its library: a value may load or compute what it is asked for."""
    if issubclass(kind, (int, float)):
        return True
    if is_mock(kind):
        return False
    return None if is_array_like(kind) or offers(kind, "as_integer_ratio") else False


def is_mapping(value: Any) -> bool:
    """Whether a value has named parts, each of which is recorded by itself."""
    kind = type(value)
    if kind is dict:
        return True
    if kind is list or kind is tuple:
        return False
    try:
        return handler_for(kind).children(value) is not None
    except Exception:  # It is kept as what it is, not by its parts.
        return False


def leaves(value: Any, prefix: str, cut: Callable[[], None] | None = None) -> Iterator[tuple[str, Any]]:
    """The parts of a structure that are none themselves, by their names joined with `/`; no name comes twice.

    Args:
        value: the structure.
        prefix: put before every name.
        cut: called where parts are left out, because they stand in the value over and over.
    """
    names: set[str] = set()
    repeats = Repeats(_MAX_REPEATED)
    for name, leaf in _leaves(value, prefix, (), repeats):
        free = free_name(name, names)
        names.add(free)
        yield free, leaf
    if repeats.exceeded and cut is not None:
        cut()


def _leaves(value: Any, prefix: str, around: tuple[int, ...], repeats: Repeats) -> Iterator[tuple[str, Any]]:
    parts = mask_entry(handler_for(type(value)).children(value) or {})
    if repeats.over(value, len(parts)):
        return
    inside = (*around, id(value))
    for key, leaf in parts.items():
        key = name_of_key(key)
        name = f"{prefix}{key}"
        if is_secret_name(key) or len(around) >= _MAX_DEPTH or not is_mapping(leaf):
            yield name, leaf
        elif id(leaf) not in inside:  # One that holds itself has been told already.
            yield from _leaves(leaf, f"{name}/", inside, repeats)


def free_name(name: str, taken: Container[str]) -> str:
    """A name, or with a number where it is taken."""
    free, count = name, 1
    while free in taken:
        count += 1
        free = f"{name}#{count}"
    return free


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError):  # Too long for a name, or with a NUL in it.
        return False
