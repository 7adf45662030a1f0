"""The handle of a run, and what can be recorded on it.

Every method here writes one event to the journal and returns; nothing waits for MLflow, except `run_id` and `url`.
"""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import msgspec

from trackdsl import _artifacts, _context, _failure
from trackdsl._events import Adopt, Close, Open, Scalar
from trackdsl._ids import begins_with, new_id, prefix
from trackdsl._record import (
    LARGE,
    LONG_TEXT,
    append_params,
    append_tags,
    clean_tags,
    cut_texts,
    encode_safely,
    fit_place,
    guarded,
    params_of,
    record_metric,
    record_metrics,
    tags_of,
)
from trackdsl._secrets import mask_text
from trackdsl._target import WATCH, Target
from trackdsl.errors import RunNotReady

_now = time.time_ns


class Run:
    """A run that is being recorded.

    You get one from `with stage(...) as run` or `current_run()`.

    Attributes:
        name: the run's name in MLflow.
        parent: the run around this one, or None.
        path: the names from the root down to this run, joined by `/`.
        experiment: the MLflow experiment it is in.
    """

    __slots__ = (
        "__weakref__",
        "_began",
        "_children",
        "_id",
        "_lost",
        "_target",
        "experiment",
        "name",
        "parent",
        "path",
    )

    def __init__(self, id_: bytes, name: str, parent: Run | None, path: str, experiment: str | None, target: Target):
        self._id = id_
        self._lost = 0
        self._began = 0
        self._children: dict[str, itertools.count[int]] = {}
        self._target = target
        self.name = name
        self.parent = parent
        self.path = path
        self.experiment = experiment

    @property
    def id(self) -> str:
        """trackdsl's own id of this run, known at once; MLflow has it as tag `trackdsl.id`."""
        return self._id.hex()

    @property
    def run_id(self) -> str:
        """MLflow's id of this run. Waits until the run exists there.

        Raises:
            RunNotReady: it could not be created within 30 seconds, or never will be (offline, disabled).
        """
        return str(self.wait_for_mlflow(30.0).run_id)

    @property
    def url(self) -> str:
        """Where the MLflow UI shows this run; waits like `run_id`."""
        found = self.wait_for_mlflow(30.0)
        base = self._target.uri if self._target.uri.startswith("http") else "http://127.0.0.1:5000"
        return f"{mask_text(base).rstrip('/')}/#/experiments/{found.experiment_id}/runs/{found.run_id}"

    def wait_for_mlflow(self, timeout: float) -> Any:
        """Wait until the run exists at MLflow.

        Args:
            timeout: seconds to wait at most.

        Returns:
            an object with `run_id` and `experiment_id`, MLflow's own.

        Raises:
            RunNotReady: it does not exist yet.
        """
        from trackdsl.delivery import find_run

        if self._target.writer is None:
            raise RunNotReady(f"run {self.name!r} is not recorded, so MLflow has no id for it", run=self.id)
        return find_run(self._target, self._id, timeout)

    def log_metric(self, name: str, value: float, step: int | None = None) -> None:
        """Record one point of a metric.

        Args:
            name: the metric's name, such as `loss` or `val/loss`.
            value: a number: int, float, bool, NumPy scalar, or anything else that `float` takes.
            step: position on the x-axis; the step of the enclosing `steps` loop by default, else 0.

        Example:
            >>> run.log_metric("loss", 0.25, step=3)  # doctest: +SKIP
        """
        record_metric(self, name, value, _context.step_of(self) if step is None else step)

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Record a point of each of several metrics, all at the same step and time.

        Args:
            metrics: names to numbers.
            step: as for `log_metric`.
        """
        record_metrics(self, metrics, _context.step_of(self) if step is None else step)

    def log_param(self, key: str, value: Any) -> None:
        """Record a parameter. Mappings and dataclasses become one parameter per leaf (`optimizer.lr`).

        Args:
            key: its name.
            value: anything; what is not a plain value is recorded by its type, never by its `repr`.
        """
        with guarded("log_param", self):
            self._add_params([(key, value)])

    def log_params(self, params: Mapping[str, Any]) -> None:
        """Record several parameters; see `log_param`."""
        with guarded("log_params", self):
            self._add_params(dict(params).items())

    def set_tag(self, key: str, value: Any) -> None:
        """Set a tag; a later value of the same name replaces it.

        Args:
            key: its name.
            value: its value, as text.
        """
        with guarded("set_tag", self):
            append_tags(self, _shortened(self, tags_of([(key, value)])))

    def set_tags(self, tags: Mapping[str, Any]) -> None:
        """Set several tags; see `set_tag`."""
        with guarded("set_tags", self):
            append_tags(self, _shortened(self, clean_tags(tags)))

    def log_artifact(self, local_path: str | os.PathLike[str], artifact_path: str | None = None) -> None:
        """Record a file or folder as it is now; it may be changed or deleted right after.

        Args:
            local_path: the file or folder.
            artifact_path: where to put it in the run. With a suffix (`"models/best.pth"`) it is the file's own new
                path, without one (`"models"`) the folder that the file goes to, under its own name.
        """
        with guarded("log_artifact", self):
            _artifacts.snapshot(self, Path(local_path), artifact_path)

    def log_artifacts(self, local_dir: str | os.PathLike[str], artifact_path: str | None = None) -> None:
        """Record everything inside a folder.

        Args:
            local_dir: the folder.
            artifact_path: the folder of the run to put its content in; the top by default.
        """
        with guarded("log_artifacts", self):
            _artifacts.snapshot_content(self, Path(local_dir), artifact_path)

    def log_dict(self, dictionary: Any, artifact_file: str) -> None:
        """Record a dictionary or list as a JSON file (YAML where the name ends in `.yaml` or `.yml`).

        Args:
            dictionary: anything made of dicts, lists, text and numbers.
            artifact_file: its path in the run, such as `config.json`.
        """
        with guarded("log_dict", self):
            _artifacts.write_structure(self, dictionary, artifact_file)

    def log_text(self, text: str, artifact_file: str) -> None:
        """Record text as a UTF-8 file.

        Args:
            text: the content.
            artifact_file: its path in the run, such as `status.txt`.
        """
        with guarded("log_text", self):
            _artifacts.write_text(self, text, artifact_file)

    def _add_params(self, pairs: Iterable[tuple[Any, Any]]) -> None:
        flat = params_of(pairs)
        append_params(self, _shortened(self, flat.values))
        _artifacts.keep_whole(self, flat)

    def next_index(self, name: str) -> int:
        """How many children or sections called `name` this run has had before."""
        counter = self._children.get(name)
        if counter is None:
            counter = self._children.setdefault(name, itertools.count())
        return next(counter)

    def __repr__(self) -> str:
        return f"<Run {self.path!r} {self.id}>"


class _NullRun(Run):
    """The handle where nothing is recorded: every method does nothing."""

    __slots__ = ()

    def log_metric(self, name: str, value: float, step: int | None = None) -> None: ...
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None: ...
    def log_param(self, key: str, value: Any) -> None: ...
    def log_params(self, params: Mapping[str, Any]) -> None: ...
    def set_tag(self, key: str, value: Any) -> None: ...
    def set_tags(self, tags: Mapping[str, Any]) -> None: ...
    def log_artifact(self, local_path: str | os.PathLike[str], artifact_path: str | None = None) -> None: ...
    def log_artifacts(self, local_dir: str | os.PathLike[str], artifact_path: str | None = None) -> None: ...
    def log_dict(self, dictionary: Any, artifact_file: str) -> None: ...
    def log_text(self, text: str, artifact_file: str) -> None: ...


NULL_RUN: Run = _NullRun(bytes(16), "disabled", None, "disabled", None, Target("disabled", "/", deliver=False))


def open_run(
    *,
    name: str,
    word: str,
    parent: Run | None,
    target: Target,
    experiment: str | None,
    params: dict[str, Scalar],
    tags: dict[str, str],
    site: tuple[str, str, str] | None,
) -> Run:
    """Begin a run: one event, and the handle."""
    index = 0 if parent is None else parent.next_index(name)
    path = name if parent is None else f"{parent.path}/{name}"
    run = Run(new_id(), name, parent, path, experiment, target)
    now = run._began = _now()
    parent_id = None if parent is None else parent._id
    event = Open(run._id, parent_id, experiment, name, word, path, index, now, params, tags, site)
    payload = encode_safely(event)
    large = len(payload) > LARGE
    if large:
        # Without this event everything else of the run would belong to nobody.
        payload = encode_safely(msgspec.structs.replace(event, params=cut_texts(params), tags=cut_texts(tags)))
    target.append(payload, run, True)
    if large:
        _shortened(run, {**params, **tags})
    if not 0 <= target.watch_at - now <= 2 * WATCH:  # Past it, or the clock was set back.
        target.watch(now)
    return run


def _shortened(run: Run, values: dict[str, Any]) -> dict[str, Any]:
    """The values with long texts cut; the whole of those is kept as files, as it would burst the journal."""
    long = {key: value for key, value in values.items() if isinstance(value, str) and len(value) > LONG_TEXT}
    for key, value in long.items():
        _artifacts.write_text(run, value, f"trackdsl/whole/{fit_place(key)}.txt")
    return cut_texts(values) if long else values


def adopt_run(mlflow_run_id: str, experiment_id: str, target: Target) -> Run:
    """A handle on a run that plain MLflow opened; trackdsl writes to it and never ends it."""
    run = Run(new_id(), "mlflow", None, "mlflow", None, target)
    target.append(encode_safely(Adopt(run._id, mlflow_run_id, experiment_id)), run, True)
    return run


def close_run(run: Run, error: BaseException | None) -> None:
    """End a run, truthfully. A forked child leaves a run that it inherited open: it ends when the parent ends it."""
    if not begins_with(run._id, prefix()):
        return
    if error is None:
        status, failure = _failure.FINISHED, None
    else:
        status, failure = _failure.status_of(error), _failure.describe(error)
    # A run never ends before it began, also where the clock was set back.
    event = Close(run._id, status, max(_now(), run._began), failure, run._lost)
    run._target.append(encode_safely(event), run, True)
