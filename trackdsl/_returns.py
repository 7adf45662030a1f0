"""What a function returns → metrics, files, models and datasets of a run.

The plan is compiled once, at decoration, from the names given to `track_returns` and the markers of the return
annotation. The value itself is handed on untouched.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from functools import partial
from typing import Any

from trackdsl import markers
from trackdsl._found import Found, Numbers, is_in_json
from trackdsl._numbers import is_mapping, is_number, leaves
from trackdsl._record import guarded, record_numbers
from trackdsl._run import Run
from trackdsl._secrets import remember
from trackdsl._signature import CallPlan
from trackdsl.errors import ReturnsError, TrackdslError
from trackdsl.handlers._annotations import Annotations, annotations_of
from trackdsl.handlers.json import Repeats, is_plain

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

    def record(
        self,
        run: Run,
        value: Any,
        step: int,
        plan: CallPlan,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        section: str = "",
    ) -> None:
        """Record one returned value.

        Args:
            run: where to.
            value: what the function returned.
            step: of the metrics.
            plan: of the call.
            args: its arguments; a model's input example is taken from them.
            kwargs: those given by name.
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
            found = Found(run, section + self._prefix, step, partial(plan.open_arguments, args, kwargs))
            try:
                self._sort(found, value)
            finally:
                found.write()
        self.check_count(value)

    def record_numbers(self, run: Run, value: Any, step: int, section: str = "") -> None:
        """Record the numbers in a value, such as one that a generator yields; everything else is passed over."""
        if value is None or (self._as_is and self._marker is None and not section and record_numbers(run, value, step)):
            return
        with guarded("track_returns", run):
            found = Numbers(run, section + self._prefix, step, dict)
            try:
                self._sort(found, value)
            finally:
                found.write()

    def _sort(self, found: Found, value: Any) -> None:
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

    def _sort_one(self, found: Found, name: str, value: Any, marker: Any) -> None:
        if value is None:
            return
        try:
            if marker is not None:
                _sort_marked(found, value, marker)
            elif (not self._artifacts or name not in self._artifacts) and is_mapping(value):
                self._sort_mapping(found, name, value)
            else:
                self._sort_leaf(found, name or self._name, value)
        except TrackdslError:
            raise
        except Exception as error:  # What one part raises must not lose the others.
            found.omit(name or self._name, error)

    def _sort_leaf(self, found: Found, name: str, value: Any) -> None:
        if self._wants_artifact(name) and (not is_number(value) or self._named_artifact(name)):
            self._keep(found, name, value)
        elif is_number(value) and self._wants_metric(name):
            found.add_metric(name, value)

    def _sort_mapping(self, found: Found, name: str, value: Any) -> None:
        rest: dict[str, Any] = {}
        cut = partial(found.cut, name or self._name)
        repeats = Repeats()
        for key, leaf in leaves(value, f"{name}/" if name else "", cut):
            try:
                if is_number(leaf) and self._wants_metric(key):
                    found.add_metric(key, leaf)
                elif leaf is not None and self._wants_artifact(key):
                    if key not in self._paths and (
                        is_plain(leaf, repeats) or (not repeats.exceeded and is_in_json(leaf))
                    ):
                        _nest(rest, key[len(name) + 1 :] if name else key, leaf)
                    elif not repeats.exceeded or type(leaf) not in (dict, list, tuple):
                        self._keep(found, key, leaf)
            except TrackdslError:
                raise
            except Exception as error:
                found.omit(key, error)
        if repeats.exceeded:
            cut()
        if rest:
            self._keep(found, name or self._name, rest)

    def _keep(self, found: Found, name: str, value: Any) -> None:
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
        if fn is None:
            return
        annotations = annotations_of(fn)
        annotation = annotations.get("return")
        marker, parts = _value_marker(annotations, annotation), annotations.tuple_parts(annotation)
        # Read a second time, further from where it was written, it may tell less.
        self._marker = self._marker if marker is None else marker
        if parts:
            found = tuple(_value_marker(annotations, part) for part in parts)
            self._part_markers = found if any(found) else self._part_markers
            if len(self._names) > len(parts):
                raise self._too_many(len(parts))
        if not annotations.missing and not annotations.failed:
            self._unread = None


def _sort_marked(found: Found, value: Any, marker: Any) -> None:
    if isinstance(marker, markers.Metric):
        found.add_metric(marker.name, value)
    elif isinstance(marker, markers.Artifact):
        found.keep(marker.path, value, as_model=False)
    elif isinstance(marker, markers.Model):
        found.keep_model(value, marker.name, marker.registered_model_name)
    elif isinstance(marker, markers.Dataset):
        found.keep_dataset(value, marker.name, marker.context)
    elif marker is markers.Secret or isinstance(marker, markers.Secret):
        remember(value)


def _nest(target: dict[str, Any], key: str, value: Any) -> None:
    *folders, last = key.split("/")
    for folder in folders:
        inner = target.setdefault(folder, {})
        if not isinstance(inner, dict):
            target[key] = value
            return
        target = inner
    target[last] = value


def _value_marker(annotations: Annotations, annotation: Any) -> Any:
    """What is to be done with a value; one that is to be hidden is not recorded, whatever else it is marked with."""
    if any(annotations.hides(annotation)):
        return markers.Secret if annotations.hides(annotation)[0] else markers.Ignore
    return next((m for m in annotations.markers(annotation) if isinstance(m, _VALUE_MARKERS)), None)


def _as_set(names: Collection[str]) -> frozenset[str]:
    return frozenset([names] if isinstance(names, str) else names)
