"""What users record on a run as values: metrics, parameters and tags."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, overload

from trackdsl._core import context as _context
from trackdsl._core.argument_order import name_first
from trackdsl._core.handle import RunHandle
from trackdsl._core.missing_call import explained
from trackdsl._recording import artifacts as _artifacts
from trackdsl._recording import datasets as _datasets
from trackdsl._recording.emit import (
    NOT_GIVEN,
    Link,
    append_tags,
    clean_tags,
    guarded,
    record_metric,
    record_metrics,
    tags_of,
)
from trackdsl._recording.params import named_parts
from trackdsl.errors import OptionError, report
from trackdsl.handlers._types import class_name
from trackdsl.handlers.references import named_model


class ValueMethods(RunHandle):
    """The methods of `Run` that record metrics, parameters and tags."""

    __slots__ = ()

    @overload
    def log_metric(
        self,
        name: str,
        value: Any,
        step: int | None = None,
        *,
        iteration: int | None = None,
        timestamp: int | None = None,
        synchronous: bool | None = None,
        model: Any = None,
        dataset: Any = None,
        model_id: str | None = None,
    ) -> None: ...
    @overload
    def log_metric(
        self,
        *,
        key: str,
        value: Any,
        step: int | None = None,
        timestamp: int | None = None,
        synchronous: bool | None = None,
        model: Any = None,
        dataset: Any = None,
        model_id: str | None = None,
    ) -> None: ...
    def log_metric(
        self,
        name: Any = None,
        value: Any = NOT_GIVEN,
        step: int | None = None,
        *,
        key: str | None = None,
        iteration: int | None = None,
        timestamp: int | None = None,
        synchronous: bool | None = None,  # noqa: ARG002 - a point is durable when this returns
        model: Any = None,
        dataset: Any = None,
        model_id: str | None = None,
    ) -> None:
        """Record one point of a metric, or a series of points.

        Args:
            name: the metric's name, such as `loss` or `val/loss`.
            value: a number: int, float, bool, NumPy scalar, an array or tensor of one item, a number as text, or any
                other object that `float` accepts. A list of numbers is a series, see `log_metrics`.
            step: position on the x-axis; the step of the enclosing `steps` loop by default, else 0.
            key: MLflow's name of the argument `name`.
            iteration: another name of `step`, which other libraries use.
            timestamp: when it was measured, in milliseconds since 1970; now by default.
            synchronous: accepted because MLflow has it; it changes nothing.
            model: the model that was measured: the result of `log_model`, a model's id or URI in MLflow, or a model
                object that was loaded or recorded. By default the metric belongs to the models that the run logs at
                this step.
            dataset: the data that it was measured on: the result of `log_input`, a `Dataset` marker that names a
                dataset recorded before, an `mlflow.data.Dataset`, a frame or an array.
            model_id: MLflow's name of the argument `model`.

        Raises:
            OptionError: both `step` and `iteration` are given, both `name` and `key`, or neither.

        Example:
            >>> run.log_metric("loss", 0.25, step=3)  # doctest: +SKIP
        """
        if iteration is not None:
            step = _only("step", step, "iteration", iteration)
        if key is not None or name is None:
            name = _only("name", name, "key", key)
        if step is None:
            step = _context.step_of(self)
        if timestamp is None is model is dataset is model_id:
            record_metric(self, name, value, step)
        else:
            record_metrics(self, {name: value}, step, timestamp, self._link(model, dataset, model_id))

    def log_metrics(
        self,
        metrics: Any,
        step: int | None = None,
        *,
        iteration: int | None = None,
        timestamp: int | None = None,
        synchronous: bool | None = None,  # noqa: ARG002 - a point is durable when this returns
        model: Any = None,
        dataset: Any = None,
        model_id: str | None = None,
    ) -> None:
        """Record points of several metrics, all at the same time.

        Args:
            metrics: numbers by name. Nested structures give names such as `val/loss`. A list, or an array of one
                dimension, is a series: its first value gets `step`, and each further value the next step. A frame or
                a list of records takes the steps from its column `step` or `epoch`, or from its index. Also a
                `History` of Keras, and the evaluation results of XGBoost and LightGBM.
            step: as for `log_metric`.
            iteration: as for `log_metric`.
            timestamp: as for `log_metric`.
            synchronous: as for `log_metric`.
            model: as for `log_metric`.
            dataset: as for `log_metric`.
            model_id: as for `log_metric`.

        Raises:
            OptionError: both `step` and `iteration` are given.

        Example:
            >>> run.log_metrics({"loss": [0.3, 0.2], "val": {"acc": 0.9}})  # doctest: +SKIP
            >>> run.log_metrics({"acc": 0.9, "f1": 0.8}, model=recorded, dataset=test_set)  # doctest: +SKIP
        """
        if iteration is not None:
            step = _only("step", step, "iteration", iteration)
        step = _context.step_of(self) if step is None else step
        unlinked = model is dataset is model_id is None  # Checked here: a call would take a tenth of the time.
        link = None if unlinked else self._link(model, dataset, model_id)
        record_metrics(self, metrics, step, timestamp, link)

    def _link(self, model: Any, dataset: Any, model_id: str | None) -> Link | None:
        """The model and dataset that points belong to; None if none is given."""
        if model is dataset is model_id is None:
            return None
        with guarded("log_metrics", self):
            if model_id is not None:
                model = _only("model", model, "model_id", model_id)
            measured = None if dataset is None else _datasets.measured_on(self, dataset)
            return Link(_named(self, model), None if measured is None else (measured.name, measured.digest))
        return None

    @explained
    def log_param(self, key: str, value: Any, *, synchronous: bool | None = None) -> None:  # noqa: ARG002 - as above
        """Record a parameter. Mappings and dataclasses become one parameter per leaf (`optimizer.lr`).

        Args:
            key: its name.
            value: any object. An object of unknown type is recorded as the name of its class, never as its `repr`.
            synchronous: as for `log_metric`.

        Example:
            >>> run.log_param("optimizer", {"name": "adam", "lr": 0.1})  # doctest: +SKIP
        """
        with guarded("log_param", self):
            _artifacts.add_params(self, [name_first(key, value)])

    @explained
    def log_params(self, params: Any, *, synchronous: bool | None = None) -> None:  # noqa: ARG002 - as above
        """Record several parameters; see `log_param`.

        Args:
            params: a mapping, or another structure with named parts: an `argparse.Namespace`, a dataclass, a
                NamedTuple, a model of pydantic or attrs, a configuration of OmegaConf.
            synchronous: as for `log_metric`.

        Example:
            >>> run.log_params({"lr": 0.1, "epochs": 10})  # doctest: +SKIP
        """
        with guarded("log_params", self):
            _artifacts.add_params(self, named_parts(params).items())

    @explained
    def set_tag(self, key: str, value: Any, *, synchronous: bool | None = None) -> None:  # noqa: ARG002 - as above
        """Set a tag; a later value of the same name replaces it.

        Args:
            key: its name.
            value: its value, which is recorded as text.
            synchronous: as for `log_metric`.

        Example:
            >>> run.set_tag("reviewed_by", "ada")  # doctest: +SKIP
        """
        with guarded("set_tag", self):
            append_tags(self, _artifacts.keep_long(self, tags_of([name_first(key, value)])))

    @explained
    def set_tags(self, tags: Mapping[str, Any], *, synchronous: bool | None = None) -> None:  # noqa: ARG002 - as above
        """Set several tags; see `set_tag`.

        Args:
            tags: the values by name.
            synchronous: as for `log_metric`.

        Example:
            >>> run.set_tags({"team": "vision", "reviewed": True})  # doctest: +SKIP
        """
        with guarded("set_tags", self):
            append_tags(self, _artifacts.keep_long(self, clean_tags(tags)))


def _named(run: RunHandle, model: Any) -> str:
    """The reference to the model that metrics belong to; empty if there is none. A tag reports an unusable model."""
    found = named_model(model) if model is not None else ""
    if found is None:
        reason = f"{class_name(model)} is not a model that MLflow holds: pass the result of log_model, or a model's id"
        append_tags(run, {"trackdsl.omitted.log_metrics.model": reason})
        report("linked", f"trackdsl: log_metrics(model=...): {reason}", key=reason)
    return found or ""


def _only(option: str, value: Any, other: str, also: Any) -> Any:
    """The value of an argument that has two names.

    Raises:
        OptionError: both names are given, or neither.
    """
    if value is None and also is None:
        raise OptionError(f"the {option} is missing, as in log_metric('loss', 0.25).", option=option)
    if value is not None and also is not None:
        given = f"{option}={value!r} and {other}={also!r}"
        raise OptionError(f"{given} are two names of one argument: give one of them.", option=other)
    return also if value is None else value
