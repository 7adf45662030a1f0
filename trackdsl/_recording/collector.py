"""Record the parts of one returned value: numbers, structures, models, datasets and other objects."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from trackdsl._core.handle import RunHandle
from trackdsl._core.redaction import is_secret, mask_text
from trackdsl._recording import artifacts as _artifacts
from trackdsl._recording.datasets import record_input
from trackdsl._recording.emit import append_tags, guarded, record_metrics
from trackdsl.errors import format_error, report, reraise_from_signal
from trackdsl.handlers._content import free_name, has_content, is_opaque
from trackdsl.handlers._registry import handler_for, handler_of
from trackdsl.store_format.tags import TRUNCATED

#: A list of more files than this is one file.
_MAX_FILES = 200
_WRITTEN = (".json", ".txt")


class Collector:
    """Collects the parts of one returned value. Numbers are collected for one event; files are written at once.

    Args:
        run: the run that records the parts.
        prefix: comes before every name.
        step: of the metrics and models.
        arguments: returns the call's arguments by name.
    """

    def __init__(self, run: RunHandle, prefix: str, step: int, arguments: Callable[[], Mapping[str, Any]]) -> None:
        self.run = run
        self.metrics: dict[str, Any] = {}
        self._series: list[tuple[str, Any]] = []
        self._files: dict[str, Path] = {}
        self._prefix = prefix
        self._step = step
        self._arguments = arguments

    def keep(self, artifact_path: str | None, value: Any, name: str = "", *, as_model: bool = True) -> None:
        """Keep a value as a file, at `artifact_path` or under its name; a model without a path as a model."""
        if is_secret(name.rpartition("/")[2], value):
            append_tags(self.run, {f"trackdsl.omitted.{name}": "its name looks like that of a secret"})
            return
        if issubclass(type(value), Path) and _exists(value):
            _artifacts.snapshot(self.run, value, artifact_path or self._free_path(value, name))
            return
        if artifact_path is None and has_files(value):
            for index, part in enumerate(handler_for(type(value)).content(value)):
                if part is not None:
                    self.keep(None, part, f"{name}.{index}", as_model=as_model)
            return
        handler = handler_of(value)
        if handler.model and artifact_path is None and as_model:
            self.keep_model(value, name, None)
            return
        if artifact_path is None and issubclass(type(value), complex):
            append_tags(self.run, {f"trackdsl.omitted.{name}": f"{value} is complex, and metrics must be real numbers"})
        suffix = ".json" if is_in_json(value) else handler.suffix
        _artifacts.keep_object(self.run, artifact_path or f"{self._prefix}{name}{suffix}", value, handler)

    def _free_path(self, path: Path, name: str) -> str | None:
        """None, which means the file's own name; if a file of another folder has it, the name with a number or key."""
        if self._files.setdefault(path.name, path) == path:
            return None
        return _artifacts.numbered(path.name, name.rpartition(".")[2] or "2")

    def keep_model(
        self,
        value: Any,
        name: str,
        registered_model_name: str | None,
        code_paths: Sequence[str | os.PathLike[str]] | None = None,
    ) -> None:
        """Keep a value as a model, whose input example is one of the call's arguments."""
        from trackdsl._recording.models import (
            record_model,  # Imported here: programs without models do not need it.
        )

        record_model(
            self.run,
            value,
            f"{self._prefix}{name}",
            registered_model_name=registered_model_name,
            arguments=self._arguments(),
            step=self._step,
            code_paths=code_paths,
        )

    def keep_dataset(self, value: Any, name: str, context: str | None) -> None:
        """Keep a value as a file, and record it as a dataset of the run."""
        self.keep(None, value, name)
        record_input(self.run, value, name, context)

    def add_metric(self, name: str, value: Any) -> None:
        """Collect a number. If another number has its name, it gets a free one."""
        self.metrics[free_name(name, self.metrics)] = value

    def add_series(self, name: str, value: Any) -> None:
        """Collect numbers with steps of their own; without a name, under their own names."""
        self._series.append((name, value))

    def add_param(self, name: str, value: Any) -> None:
        """Record a value as a parameter."""
        with guarded("log_param", self.run):
            _artifacts.add_params(self.run, [(name, value)])

    def omit(self, name: str, error: Exception) -> None:
        """Report one value as missing, because reading it raised an exception."""
        reraise_from_signal(error)
        reason = mask_text(format_error(error))[:500]
        append_tags(self.run, {f"trackdsl.omitted.{name}": reason})
        report("omitted", f"trackdsl left out the returned {name!r}: {reason}", key=f"returned:{name}")

    def cut(self, name: str) -> None:
        """Report that a value contains the same parts again and again, so only some of them are recorded."""
        append_tags(self.run, {TRUNCATED + name: "it contains itself, or parts many times: recorded in part"})

    def write(self) -> None:
        """Write the numbers that were collected."""
        if self.metrics:
            prefix = self._prefix
            named = {prefix + name: value for name, value in self.metrics.items()} if prefix else self.metrics
            record_metrics(self.run, named, self._step)
        for name, value in self._series:
            self._write_series(name, value)

    def _write_series(self, name: str, value: Any) -> None:
        from trackdsl._recording.series import Points

        points = Points(0)  # Its steps count from 0 in every call.
        points.add_all({name: value} if name else value)
        for step, values in ((self._step, points.values), *points.series()):
            record_metrics(self.run, {f"{self._prefix}{key}": number for key, number in values.items()}, step)


class NumberCollector(Collector):
    """Collects only the numbers."""

    def keep(self, artifact_path: str | None, value: Any, name: str = "", *, as_model: bool = True) -> None:
        """See `Collector`: ignored."""

    def keep_model(
        self,
        value: Any,
        name: str,
        registered_model_name: str | None,
        code_paths: Sequence[str | os.PathLike[str]] | None = None,
    ) -> None:
        """See `Collector`: ignored."""

    def keep_dataset(self, value: Any, name: str, context: str | None) -> None:
        """See `Collector`: ignored."""

    def add_series(self, name: str, value: Any) -> None:
        """See `Collector`: ignored."""

    def add_param(self, name: str, value: Any) -> None:
        """See `Collector`: ignored."""


def has_files(value: Any) -> bool:
    """Whether each item of a list becomes a file: models, images, frames, arrays, paths, or lists of these."""
    kind = type(value)
    if not (issubclass(kind, (list, tuple)) or handler_for(kind).listed) or hasattr(kind, "_fields"):
        return False
    if not 0 < len(value) <= _MAX_FILES:
        return False
    return any(part is not None for part in value) and all(part is None or _has_file(part) for part in value)


def _has_file(value: Any) -> bool:
    if issubclass(type(value), Path):
        return _exists(value)
    handler = handler_of(value)
    return handler.model or not (handler.executes or handler.suffix in _WRITTEN) or has_files(value)


def is_in_json(value: Any) -> bool:
    """Whether a returned value is written as JSON, or as a part of it: text, sets, and lists of such values."""
    if issubclass(type(value), complex) or has_files(value):
        return False
    handler = handler_for(type(value))
    if handler.model or not (handler.executes or handler.suffix == ".json"):
        return False
    return has_content(value) and not is_opaque(value)


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError):  # Too long for a name, or with a NUL in it.
        return False
