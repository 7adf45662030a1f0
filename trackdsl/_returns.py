"""What a function returns → metrics and artifacts of a run.

The plan is compiled once, at decoration, from the names given to `track_returns` and the markers of the return
annotation. The value itself is handed on untouched.
"""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

from trackdsl import _artifacts, markers
from trackdsl._record import append_tags, guarded, record_metrics, record_numbers, to_number
from trackdsl._run import Run
from trackdsl._secrets import is_secret_name, mask_text
from trackdsl._signature import annotations_of, markers_of
from trackdsl.errors import ReturnsError, report
from trackdsl.handlers import handler_of

_MAX_DEPTH = 20
_VALUE_MARKERS = (markers.Metric, markers.Artifact, markers.Model, markers.Dataset)


class ReturnPlan:
    """How the return values of one function are recorded.

    Args:
        fn: the function.
        names: names of the returned values, in order.
        prefix: put before every metric's name.
        metrics: the only names to record as metrics, or None for all numbers.
        artifacts: the only names to record as files (a mapping gives their paths), or None for all the rest.

    Raises:
        ReturnsError: there are more names than the return annotation has values.
    """

    def __init__(
        self,
        fn: Callable[..., Any],
        names: tuple[str, ...] = (),
        prefix: str = "",
        metrics: Collection[str] | None = None,
        artifacts: Collection[str] | Mapping[str, str] | None = None,
    ) -> None:
        self._name: str = getattr(fn, "__name__", type(fn).__name__)
        self._names = names
        self._prefix = prefix
        self._metrics = None if metrics is None else _as_set(metrics)
        self._artifacts = None if artifacts is None else _as_set(artifacts)
        self._paths = dict(artifacts) if isinstance(artifacts, Mapping) else {}
        self._unread: Callable[..., Any] | None = fn
        self._marker: Any = None
        self._part_markers: tuple[Any, ...] = ()
        #: Nothing chooses, names or places: a dict of numbers is recorded as it is.
        self._as_is = not names and not prefix and self._metrics is None
        self._read_annotation()

    def record(self, run: Run, value: Any, step: int, section: str = "") -> None:
        """Record one returned value.

        Args:
            run: where to.
            value: what the function returned.
            step: of the metrics.
            section: `name/` for a section of a run, else nothing.

        Raises:
            ReturnsError: there are more names than values; everything that has a name is recorded first.
        """
        if value is None:
            return
        if self._unread is not None:
            self._read_annotation()
            self._unread = None
        if self._as_is and self._marker is None and not section and record_numbers(run, value, step):
            return
        with guarded("track_returns", run):
            found = _Found(run, section + self._prefix)
            self._sort(found, value)
            found.write(step)
        self.check_count(value)

    def _sort(self, found: _Found, value: Any) -> None:
        names = self._names
        if type(value) is tuple and (len(names) != 1 or len(value) == 1):
            for index, part in enumerate(value):
                marker = self._part_markers[index] if index < len(self._part_markers) else None
                name = names[index] if index < len(names) else f"{self._name}.{index}"
                self._sort_one(found, name, part, marker)
        elif names:
            self._sort_one(found, names[0], value, self._marker)
        else:
            self._sort_one(found, "", value, self._marker)

    def _sort_one(self, found: _Found, name: str, value: Any, marker: Any) -> None:
        if value is None:
            return
        if marker is not None:
            self._sort_marked(found, value, marker)
            return
        kind = type(value)
        if (kind is dict or _is_mapping(value)) and (not self._artifacts or name not in self._artifacts):
            self._sort_mapping(found, name, value)
            return
        name = name or self._name
        if self._wants_artifact(name) and (not _is_number(value) or self._named_artifact(name)):
            self._keep(found, name, value)
        elif _is_number(value) and self._wants_metric(name):
            found.metrics[name] = value

    def _sort_marked(self, found: _Found, value: Any, marker: Any) -> None:
        if isinstance(marker, markers.Metric):
            found.metrics[marker.name] = value
        elif isinstance(marker, markers.Artifact):
            found.keep(marker.path, value)
        else:
            found.keep(f"{marker.name}/{marker.name}{handler_of(value).suffix}", value)

    def _sort_mapping(self, found: _Found, name: str, value: Any) -> None:
        rest: dict[str, Any] = {}
        for key, leaf in _leaves(value, f"{name}/" if name else ""):
            if _is_number(leaf) and self._wants_metric(key):
                found.metrics[key] = leaf
            elif leaf is not None and self._wants_artifact(key):
                if _is_plain(leaf) and key not in self._paths:
                    _nest(rest, key[len(name) + 1 :] if name else key, leaf)
                else:
                    self._keep(found, key, leaf)
        if rest:
            self._keep(found, name or self._name, rest)

    def _keep(self, found: _Found, name: str, value: Any) -> None:
        found.keep(self._paths.get(name), value, name)

    def _wants_metric(self, name: str) -> bool:
        return self._metrics is None or name in self._metrics

    def _wants_artifact(self, name: str) -> bool:
        return self._artifacts is None or name in self._artifacts

    def _named_artifact(self, name: str) -> bool:
        return self._artifacts is not None and name in self._artifacts

    def check_count(self, value: Any) -> None:
        """Check that there are as many values as names.

        Raises:
            ReturnsError: there are fewer.
        """
        if value is None:  # An early return: nothing came back, so nothing is misnamed.
            return
        count = len(value) if type(value) is tuple else 1
        if len(self._names) > max(count, 1):
            raise self._too_many(count, value)

    def _too_many(self, count: int, result: Any = None) -> ReturnsError:
        names = ", ".join(repr(name) for name in self._names)
        return ReturnsError(
            f"@track_returns({names}) names {len(self._names)} values, but {self._name}() returns "
            f"{count}. Drop {', '.join(repr(n) for n in self._names[count:])}, or return as many values as there are "
            "names." + (" What it returned is in the `result` of this error." if result is not None else ""),
            names=self._names,
            result=result,
        )

    def _read_annotation(self) -> None:
        fn = self._unread
        hints = None if fn is None else annotations_of(fn)
        if hints is None:
            return
        self._unread = None
        annotation = hints.get("return")
        self._marker = _value_marker(annotation)
        if typing.get_origin(annotation) is tuple:
            parts = typing.get_args(annotation)
            if Ellipsis not in parts:
                self._part_markers = tuple(_value_marker(part) for part in parts)
                if len(self._names) > len(parts):
                    raise self._too_many(len(parts))


class _Found:
    """The metrics of one returned value, gathered for one event; files are written as they are found."""

    def __init__(self, run: Run, prefix: str) -> None:
        self.run = run
        self.prefix = prefix
        self.metrics: dict[str, Any] = {}

    def keep(self, place: str | None, value: Any, name: str = "") -> None:
        if is_secret_name(name.rpartition("/")[2]):
            append_tags(self.run, {f"trackdsl.omitted.{name}": "its name is that of a secret"})
            return
        if isinstance(value, Path) and value.exists():
            _artifacts.snapshot(self.run, value, place)
            return
        try:
            handler = handler_of(value)
            path = place or f"{self.prefix}{name}{handler.suffix}"
            _artifacts.keep_object(self.run, path, lambda to: handler.write(value, to))
        except ImportError as error:
            reason = mask_text(f"{type(value).__name__}: {error}")
            report("artifact", f"trackdsl could not keep the returned {name or place!r}: {reason}", key=name)
            append_tags(self.run, {f"trackdsl.omitted.{name or place}": reason[:500]})

    def write(self, step: int) -> None:
        if self.metrics:
            prefix = self.prefix
            named = {prefix + name: value for name, value in self.metrics.items()} if prefix else self.metrics
            record_metrics(self.run, named, step)


def _is_number(value: Any) -> bool:
    kind = type(value)
    if kind is float or kind is int or kind is bool:
        return True
    if isinstance(value, (int, float)):
        return True
    # NumPy scalars, 0-d arrays and tensors, Decimal, Fraction: recognised by what they offer, not by their library.
    if getattr(value, "shape", None) == () or hasattr(value, "as_integer_ratio"):
        try:
            to_number(value)
        except Exception:
            return False
        return True
    return False


def _is_mapping(value: Any) -> bool:
    return (
        isinstance(value, Mapping)
        or (dataclasses.is_dataclass(value) and not isinstance(value, type))
        or (isinstance(value, tuple) and hasattr(value, "_fields"))
    )


def _as_mapping(value: Any) -> Mapping[Any, Any]:
    if isinstance(value, Mapping):
        return value
    if isinstance(value, tuple):
        return dict(zip(value._fields, value, strict=False))  # type: ignore[attr-defined]
    return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}


def _leaves(value: Any, prefix: str, around: tuple[int, ...] = ()) -> typing.Iterator[tuple[str, Any]]:
    for key, leaf in _as_mapping(value).items():
        name = f"{prefix}{key}"
        if not _is_mapping(leaf) or is_secret_name(str(key)) or len(around) >= _MAX_DEPTH:
            yield name, leaf
        elif id(leaf) not in around and leaf is not value:  # One that holds itself has been told already.
            yield from _leaves(leaf, f"{name}/", (*around, id(value)))


def _is_plain(value: Any) -> bool:
    from trackdsl.handlers.json import is_plain

    return is_plain(value)


def _nest(target: dict[str, Any], key: str, value: Any) -> None:
    *folders, last = key.split("/")
    for folder in folders:
        inner = target.setdefault(folder, {})
        if not isinstance(inner, dict):
            target[key] = value
            return
        target = inner
    target[last] = value


def _value_marker(annotation: Any) -> Any:
    return next((m for m in markers_of(annotation) if isinstance(m, _VALUE_MARKERS)), None)


def _as_set(names: Collection[str]) -> frozenset[str]:
    return frozenset([names] if isinstance(names, str) else names)
