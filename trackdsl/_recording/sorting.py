"""Decide for each part of a returned value whether it is a metric, a file, a model or a dataset."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any

from trackdsl import markers
from trackdsl._core.redaction import is_secret_name, remember
from trackdsl._recording.choices import Choices, Expected, with_outer
from trackdsl._recording.collector import Collector, is_in_json
from trackdsl._recording.numbers import is_mapping, is_number, is_single, parts_of
from trackdsl._recording.series import is_history
from trackdsl.errors import TrackingFault
from trackdsl.handlers._line import MAX_ITEMS
from trackdsl.handlers._marked_fields import EachMarked, Fields, PartsMarked, fields_of, kind_of_marker
from trackdsl.handlers._plain import Repeats, is_plain
from trackdsl.handlers._registry import handler_for
from trackdsl.handlers._scalar_text import name_of_key
from trackdsl.handlers._types import class_name, is_array_like

#: The depth in a structure up to which training histories are found.
_MAX_DEPTH = 5


class Sorter:
    """Sorts one returned value.

    Args:
        choices: the options of `track_returns`.
        collector: records the parts.

    Attributes:
        found: the names of the returned values.
        absent: expected name → why a value that the annotation marks was not returned.
        count: the number of returned values.
        by_key: whether they are the values of a mapping.
    """

    def __init__(self, choices: Choices, collector: Collector) -> None:
        self.found: dict[str, None] = {}
        self.absent: dict[str, str] = {}
        self.count = 1
        self.by_key = False
        self._choices = choices
        self._collector = collector

    def sort(self, value: Any, expected: Expected) -> None:
        """Sort a value and its parts."""
        names, choices = self._choices.names, self._choices
        values = self._split(value, expected)
        if values is None:
            self.by_key = len(names) > 1 and is_mapping(value)
            self._sort_one(names[0] if names and not self.by_key else "", value, expected)
            self._report_absent(expected, 0, class_name(value))
            return
        self.count = len(values)
        own_names = [f"{choices.function}.{index}" for index in range(len(values))]
        unnamed = range(len(names), len(values))
        mappings = [i for i in unnamed if not expected.part(i).markers and is_mapping(values[i])]
        if len(mappings) == 1 and not choices.is_chosen(own_names[mappings[0]]):
            own_names[mappings[0]] = ""  # The only dict among the values needs no prefix.
        for index, part in enumerate(values):
            self._sort_one(names[index] if index < len(names) else own_names[index], part, expected.part(index))
        self._report_absent(expected, len(values), f"{len(values)} value{'s' if len(values) != 1 else ''}")

    def _report_absent(self, expected: Expected, count: int, returned: str) -> None:
        """Report the values that the annotation marks and that were not returned."""
        for index, part in enumerate(expected.parts[count:], count):
            for each in part.markers:
                marker = each.marker if type(each) is EachMarked else each
                named = getattr(marker, "name", None) or getattr(marker, "path", None)
                name = named if isinstance(named, str) else f"{self._choices.function}.{index}"
                self.absent[name] = (
                    f"it is value {index} in the annotation, but {self._choices.function}() returned {returned}"
                )

    def _split(self, value: Any, expected: Expected) -> list[Any] | None:
        """The values that a function returned; None for a single value."""
        names, kind = self._choices.names, type(value)
        if issubclass(kind, (list, tuple)) and expected.marks_parts():
            return list(value) if len(value) <= MAX_ITEMS else None
        if kind is tuple:
            return list(value) if len(names) != 1 or len(value) == 1 else None
        if len(names) < 2:
            return None
        if issubclass(kind, tuple) and hasattr(kind, "_fields"):
            return None if set(names) <= set(kind._fields) else list(value)
        if issubclass(kind, (list, tuple)):
            return list(value) if len(value) <= MAX_ITEMS else None
        if is_array_like(kind) and tuple(value.shape) == (len(names),):
            return list(value)
        return None

    def _sort_one(self, name: str, value: Any, expected: Expected) -> None:
        choices = self._choices
        named = name or choices.function
        try:
            if not expected.markers and is_mapping(value) and not self._is_chosen_file(name, value):
                self._add_found(name)
                self._sort_mapping(name, value, expected.fields)
                return
            self._add_found(named)
            if value is None:
                return
            if expected.markers:
                self._sort_marked(named, value, expected.markers)
            else:
                self._sort_leaf(name, value)
        except TrackingFault:
            raise
        except Exception as error:  # An exception in one part must not lose the others.
            self._collector.omit(named, error)

    def _is_chosen_file(self, name: str, value: Any) -> bool:
        """Whether a structure becomes one file. The function's name means all of it, unless a part has it."""
        function = self._choices.function
        whole = not name and not (issubclass(type(value), dict) and function in value)
        return self._choices.is_chosen_artifact(function if whole else name)

    def _sort_leaf(self, own_name: str, value: Any) -> None:
        name = own_name or self._choices.function
        if not self._sort_number(name, value, is_number(value)):
            if self._choices.metrics is None and is_history(value):
                self._collector.add_series(own_name, value)
            self._sort_records(value)
            if self._wants_artifact(name):
                self._keep(name, value)

    def _sort_records(self, value: Any) -> None:
        """Record the marked metrics of a list of structures, such as the folds of a validation, as points by step."""
        if not issubclass(type(value), (list, tuple)) or not 0 < len(value) <= MAX_ITEMS:
            return
        kinds = set(map(type, value))
        if len(kinds) > 1 or not is_mapping(value[0]) or not fields_of(kinds.pop()).marked:
            return
        series: dict[str, list[Any]] = {}
        for item in value:
            for key, leaf, marked in parts_of(item, ""):
                for marker in marked:
                    if kind_of_marker(marker) is markers.Metric:
                        series.setdefault(key if marker is markers.Metric else marker.name, []).append(leaf)
        for name, found in series.items():
            self._collector.add_series(name, found)

    def _sort_number(self, name: str, value: Any, number: bool) -> bool:
        """Record a number by the options; return False for a value that may become a file."""
        choices = self._choices
        kept = choices.is_chosen_artifact(name)
        # A value that `metrics` names and that is not a number is added too: the collector reports it.
        if choices.is_chosen_metric(name, number=number) or (number and choices.metrics is None and not kept):
            self._collector.add_metric(name, value)
            return not kept
        return number and not kept

    def _sort_mapping(self, name: str, value: Any, fields: Fields | None) -> None:
        rest: dict[str, Any] = {}
        cut = partial(self._collector.cut, name or self._choices.function)
        repeats = Repeats()
        if self._choices.metrics is None:
            self._sort_history(name, value, fields, 0)
        for key, leaf, marked in parts_of(value, f"{name}/" if name else "", cut, self._is_whole, fields):
            self._add_found(key)
            try:
                if leaf is not None and marked:
                    self._sort_marked(key, leaf, marked)
                elif leaf is not None and not self._sort_number(key, leaf, is_single(leaf)):
                    self._sort_rest(key, leaf, rest, key[len(name) + 1 :] if name else key, repeats)
            except TrackingFault:
                raise
            except Exception as error:
                self._collector.omit(key, error)
        if repeats.exceeded:
            cut()
        if rest:
            self._keep(name or self._choices.function, rest)

    def _sort_rest(self, name: str, value: Any, rest: dict[str, Any], path: str, repeats: Repeats) -> None:
        """Add a part that is not a metric to the common file of such parts, or write it to a file of its own."""
        if not self._wants_artifact(name):
            return
        own_file = self._choices.is_chosen_artifact(name)
        if not own_file and (is_plain(value, repeats) or (not repeats.exceeded and is_in_json(value))):
            _nest(rest, path, value)
        elif not repeats.exceeded or type(value) not in (dict, list, tuple):
            self._keep(name, value)

    def _is_whole(self, name: str, _: Any) -> bool:
        return self._choices.is_chosen_artifact(name)

    def _sort_history(self, name: str, value: Any, fields: Fields | None, depth: int) -> None:
        """Record the training histories of a structure as series of points."""
        kind = type(value)
        if issubclass(kind, dict):
            parts: Mapping[Any, Any] = dict.copy(value)
        else:  # Other mappings may be slow, so they are read only once.
            parts = {} if issubclass(kind, Mapping) else handler_for(kind).children(value) or {}
            fields = fields_of(kind)
        marked = set() if fields is None else fields.hidden | fields.ignored | set(fields.marked)
        hidden = {key for key in parts if key in marked or is_secret_name(name_of_key(key))}
        if not hidden and is_history(value, name.rpartition("/")[2]):
            self._collector.add_series(name, value)
        elif depth < _MAX_DEPTH:
            for key, part in parts.items():
                within = _joined(name, key)
                if is_mapping(part) and key not in hidden and not self._choices.is_chosen_artifact(within):
                    self._sort_history(within, part, None if fields is None else fields.parts.get(key), depth + 1)

    def _sort_marked(self, name: str, value: Any, marked: tuple[Any, ...]) -> None:
        """Record a value as its markers say. A marker without a name uses the name of the value."""
        for marker in marked:
            if type(marker) is PartsMarked:
                self._sort_parts(name, value, marker)
            elif type(marker) is EachMarked:
                self._sort_each(name, value, marker.marker)
            else:
                self._apply_marker(name, value, marker)

    def _sort_each(self, name: str, value: Any, marker: Any) -> None:
        """Apply a marker to each item of a list or dict; to another value itself."""
        kind = type(value)
        if not issubclass(kind, (list, tuple, dict)) or len(value) > MAX_ITEMS:
            self._apply_marker(name, value, marker)
            return
        for key, part in dict.items(value) if issubclass(kind, dict) else enumerate(value):
            if part is not None:
                number = name_of_key(key)
                own = marker if isinstance(marker, type) else replace(marker, name=f"{marker.name}.{number}")
                self._apply_marker(f"{name}.{number}", part, own)

    def _sort_parts(self, name: str, value: Any, marker: PartsMarked) -> None:
        """Sort the values of a tuple inside the returned value."""
        values = list(value) if issubclass(type(value), (list, tuple)) and len(value) <= MAX_ITEMS else [value]
        for index, part in enumerate(values):
            marked = marker.parts[index] if index < len(marker.parts) else ()
            self._sort_one(f"{name}.{index}", part, Expected(marked))

    def _apply_marker(self, name: str, value: Any, marker: Any) -> None:
        kind, collector = kind_of_marker(marker), self._collector
        bare = marker is kind
        if kind is markers.Metric:
            collector.add_metric(name if bare else marker.name, value)
        elif kind is markers.Param:
            collector.add_param(name if bare else marker.name, value)
        elif kind is markers.Artifact:
            collector.keep(None if bare else marker.path, value, name, as_model=False)
        elif kind is markers.Model:
            if bare:
                collector.keep_model(value, name, None)
            else:
                collector.keep_model(value, marker.name, marker.registered_model_name, marker.code_paths)
        elif kind is markers.Dataset:
            collector.keep_dataset(value, name if bare else marker.name, None if bare else marker.context)
        elif kind is markers.Secret:
            remember(value)

    def _keep(self, name: str, value: Any) -> None:
        self._collector.keep(self._choices.paths.get(name), value, name)

    def _wants_artifact(self, name: str) -> bool:
        return self._choices.artifacts is None or self._choices.is_chosen_artifact(name)

    def _add_found(self, name: str) -> None:
        if name:
            self.found.update(dict.fromkeys(with_outer(name)))


def _joined(name: str, key: Any) -> str:
    return f"{name}/{name_of_key(key)}" if name else name_of_key(key)


def _nest(target: dict[str, Any], key: str, value: Any) -> None:
    *folders, last = key.split("/")
    for folder in folders:
        inner = target.setdefault(folder, {})
        if not isinstance(inner, dict):
            target[key] = value
            return
        target = inner
    target[last] = value
