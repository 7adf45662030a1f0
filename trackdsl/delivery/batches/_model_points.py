"""The metrics of logged models: which points of a run belong to which model.

As in plain MLflow, a point belongs to the model that it names, else to the models that its run has logged at the same
step, before or after the point. A store keeps one point of a model for each metric, step and millisecond, and refuses a
whole request because of a second one. So delivery asks for a model's points before it writes any.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from trackdsl._core.events import KEY
from trackdsl.delivery.state._run_map import DeliveredRun
from trackdsl.delivery.store._errors import NotYet, Refused
from trackdsl.delivery.store._sink import Sink
from trackdsl.errors import logger
from trackdsl.store_format.limits import MAX_METRICS

#: How many keys of points are remembered for one model, unless there are more within `_MARGIN`.
_MOST_OCCUPIED = 20_000
#: Points that are older than newer ones by more than this are looked up at the store, in milliseconds.
_MARGIN = 60_000
#: How long to wait for a model that another journal, or a later attempt, brings, in seconds.
_PATIENCE = 30.0
_MOST_KEYS = 10_000

#: Key, value, time in milliseconds since 1970, step.
MetricRow = tuple[str, float, int, int]
#: The name and the digest of a dataset.
Dataset = tuple[str, str]


class Link(NamedTuple):
    """The model and the dataset that a point belongs to: MLflow's id or an empty text, and the dataset or None."""

    model_id: str
    dataset: Dataset | None


@dataclass
class _UsedKeys:
    """The keys of a model's points (metric, step, time); those before `since` are forgotten."""

    keys: set[tuple[str, int, int]]
    since: int = 0

    def add(self, points: Iterable[MetricRow]) -> None:
        self.keys.update((key, step, at) for key, _, at, step in points)
        if len(self.keys) > _MOST_OCCUPIED:
            self.since = max(at for _, _, at in self.keys) - _MARGIN
            self.keys = {key for key in self.keys if key[2] >= self.since}


class ModelPoints:
    """Adds points of runs to logged models, each once."""

    def __init__(self) -> None:
        self._models: dict[str, dict[str, int]] = {}
        self._used: dict[tuple[str, str], _UsedKeys] = {}
        self._ids: dict[str, str] = {}
        self._asked: dict[str, float] = {}
        #: Deleted models.
        self._gone: set[str] = set()

    def begin(self, run_id: str) -> None:
        """A run was created just now, so it has no models yet."""
        self._models[run_id] = {}

    def forget(self, run_id: str) -> None:
        """Forget a run that has ended."""
        self._models.pop(run_id, None)
        for key in [key for key in self._used if key[0] == run_id]:
            del self._used[key]

    def added(self, sink: Sink, run_id: str, model_id: str, step: int, key: str = "") -> None:
        """Add to a model that was logged just now the points of its run at its step.

        Args:
            sink: the store.
            run_id: MLflow's id of the run.
            model_id: MLflow's id of the model.
            step: the step of the model.
            key: the key of the model's event, if it has one.
        """
        if key:
            if len(self._ids) >= _MOST_KEYS:
                self._ids.clear()
            self._ids[key] = model_id
        if run_id in self._models:
            self._models[run_id][model_id] = step
        try:
            points = [
                (name, value, at, step)
                for name in sink.keys(run_id)["metrics"]
                # If several points are in one millisecond, the largest comes last: that is the one that the run shows.
                for _, value, at in sorted(sink.metric_history(run_id, name, step), key=lambda point: point[:0:-1])
            ]
            self._write(sink, run_id, model_id, [model_id], points, None)
        except Refused as error:  # The run or the model is deleted.
            logger.warning("trackdsl: model %s gets no metrics of its run: %s", model_id, error)

    def find(self, sink: Sink, run: DeliveredRun, model: str) -> str | None:
        """MLflow's id of a model that an event names; None if it does not come within a time limit.

        Raises:
            NotYet: it may come in a moment.
        """
        if not model.startswith(KEY):
            return model
        key = model.removeprefix(KEY)
        model_id = self._ids.get(key) or sink.find_model(key, run.experiment_id)
        if model_id is None and time.monotonic() - self._asked.setdefault(key, time.monotonic()) < _PATIENCE:
            raise NotYet("a model that metrics belong to is not delivered yet")
        if model_id is not None:
            self._ids[key] = model_id
            self._asked.pop(key, None)
        return model_id

    def write(self, sink: Sink, run: DeliveredRun, points: list[MetricRow], links: Mapping[int, Link]) -> None:
        """Add points that the run has already to the models that they belong to.

        Args:
            sink: the store.
            run: the run.
            points: of the run.
            links: what points name, by their index in `points`.

        Raises:
            Refused: a model does not exist.
        """
        models = self._of(sink, run)
        if not models and not links:
            return
        groups: dict[tuple[str, Dataset | None], list[MetricRow]] = {}
        for index, point in enumerate(points):
            link = links.get(index)
            named = [link.model_id] if link is not None and link.model_id else None
            for model_id in named or [
                id_ for id_, step in models.items() if step == point[3] and id_ not in self._gone
            ]:
                groups.setdefault((model_id, link.dataset if link is not None else None), []).append(point)
        refusal = None
        for (model_id, dataset), group in groups.items():
            try:
                self._write(sink, run.run_id, model_id, models, group, dataset)
            except Refused as error:  # The model is deleted; the others get their points.
                self._gone.add(model_id)
                refusal = error
        if refusal is not None:
            raise refusal

    def _of(self, sink: Sink, run: DeliveredRun) -> dict[str, int]:
        """The models that a run has logged, with their steps.

        Other processes may add some to a remote run at any time.
        """
        known = self._models.get(run.run_id)
        if known is None or not run.ours:
            try:
                known = dict(sink.models_of(run.run_id))
            except Refused:  # The run is gone.
                known = {}
            self._models[run.run_id] = known
        return known

    def _write(
        self,
        sink: Sink,
        run_id: str,
        model_id: str,
        models: Collection[str],
        points: list[MetricRow],
        dataset: Dataset | None,
    ) -> None:
        of_model = run_id, model_id
        used = self._used.get(of_model)
        if used is None or any(at < used.since for _, _, at, _ in points):
            stored = {(key, step, at) for of, key, step, at in sink.model_points(model_id) if of == run_id}
            if model_id not in models:  # A run that evaluates a model of another run uses it.
                sink.write_model_input(run_id, model_id)
            used = self._used[of_model] = _UsedKeys(stored)
        # If several points are in one millisecond, the last one is kept: it is the final value of the metric.
        free = {(key, step, at): (key, value, at, step) for key, value, at, step in points}
        left = [point for key, point in free.items() if key not in used.keys]
        for start in range(0, len(left), MAX_METRICS):
            part = left[start : start + MAX_METRICS]
            try:
                sink.write_model_points(run_id, model_id, part, dataset)
            except BaseException:
                self._used.pop(of_model, None)  # Nobody knows whether the request was carried out.
                raise
            used.add(part)
