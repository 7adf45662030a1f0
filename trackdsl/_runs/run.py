"""The handle of a run, and what can be recorded on it.

Every method here writes one event to the journal and returns; nothing waits for MLflow, except `run_id` and `url`.
"""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NoReturn, overload

from trackdsl._core import context as _context
from trackdsl._core.argument_order import file_in_order, in_order, model_in_order, name_first
from trackdsl._core.events import Model, Tags, encode
from trackdsl._core.ids import begins_with, prefix
from trackdsl._core.missing_call import explained
from trackdsl._core.redaction import mask_text
from trackdsl._core.suggest import suggestion_for
from trackdsl._recording import artifacts as _artifacts
from trackdsl._recording import datasets as _datasets
from trackdsl._recording import images as _images
from trackdsl._recording import tables as _tables
from trackdsl._recording.emit import (
    NOT_GIVEN,
    Link,
    append_params,
    append_tags,
    clean_tags,
    guarded,
    named_parts,
    params_of,
    record_metric,
    record_metrics,
    tags_of,
)
from trackdsl._runs.exceptions import FINISHED, STATUSES
from trackdsl.errors import OptionError, RunNotReady, report
from trackdsl.handlers._line import name_of_key
from trackdsl.handlers._registry import class_name
from trackdsl.handlers.references import named_model
from trackdsl.journal._target import Target
from trackdsl.markers import check_registered_name

if TYPE_CHECKING:
    from trackdsl._recording.recorded_model import RecordedModel


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
        """MLflow's id of this run. Waits until the run exists there, as long as its delivery is alive.

        Raises:
            RunNotReady: it cannot be created now (the store does not answer, or refuses it; no process delivers), or
                never will be (offline, disabled).
        """
        self._ask_for()
        return str(self.wait_for_mlflow().run_id)

    @property
    def url(self) -> str:
        """Where the MLflow UI shows this run; waits like `run_id`."""
        self._ask_for()
        found = self.wait_for_mlflow()
        base = self._target.uri if self._target.uri.startswith("http") else "http://127.0.0.1:5000"
        return f"{mask_text(base).rstrip('/')}/#/experiments/{found.experiment_id}/runs/{found.run_id}"

    def wait_for_mlflow(self, timeout: float | None = None) -> Any:
        """Wait until the run exists at MLflow.

        Args:
            timeout: seconds to wait at most; None to wait as long as delivery is alive and does not fail.

        Returns:
            an object with `run_id` and `experiment_id`, MLflow's own.

        Raises:
            RunNotReady: it does not exist yet.
        """
        from trackdsl.delivery import find_run
        from trackdsl.store_format.known_runs import KnownRun

        if self._target.discards:  # Another process records: what reads the id here need not know.
            return KnownRun(self.id, "0")
        if self._target.writer is None or not self._target.delivers:
            raise RunNotReady(f"run {self.name!r} is not recorded, so MLflow has no id for it", run=self.id)
        return find_run(self._target, self._id, timeout)

    def _ask_for(self) -> None:
        """Have the run looked for where another process has opened it, on another machine perhaps."""
        if self._target.delivers and not begins_with(self._id, prefix()):
            # Delivery looks for what something is to be written to.
            self._target.append(encode(Tags(self._id, {})), self)

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
        synchronous: bool | None = None,  # noqa: ARG002 - what is recorded is safe when this returns
        model: Any = None,
        dataset: Any = None,
        model_id: str | None = None,
    ) -> None:
        """Record one point of a metric, or a series of points.

        Args:
            name: the metric's name, such as `loss` or `val/loss`.
            value: a number: int, float, bool, NumPy scalar, an array or tensor of one item, text that is a number, or
                anything else that `float` takes. A list of numbers is a series, see `log_metrics`.
            step: position on the x-axis; the step of the enclosing `steps` loop by default, else 0.
            key: MLflow's word for `name`.
            iteration: another name of `step`, which other libraries know it by.
            timestamp: when it was measured, in milliseconds since 1970; now by default.
            synchronous: taken for MLflow's sake, and changes nothing.
            model: the model that was measured: what `log_model` has returned, an id or URI of MLflow's, a model that
                was loaded, or one that was recorded. By default the metric belongs to the models that the run logs at
                this step.
            dataset: the data that it was measured on: what `log_input` has returned, a `Dataset` marker that names data
                recorded before, an `mlflow.data.Dataset`, a frame or an array.
            model_id: MLflow's word for `model`.

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
        synchronous: bool | None = None,  # noqa: ARG002 - what is recorded is safe when this returns
        model: Any = None,
        dataset: Any = None,
        model_id: str | None = None,
    ) -> None:
        """Record points of several metrics, all at the same time.

        Args:
            metrics: names to numbers. Structures inside give names such as `val/loss`. A list, or an array of one
                dimension, is a series: its first value stands at `step`, each further one at the next. A frame or a
                list of records has the steps of its column `step` or `epoch`, or of its index. Also a `History` of
                Keras, and what XGBoost and LightGBM record while they train.
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
        unlinked = model is dataset is model_id is None  # Asked here, as a call costs a tenth of a point.
        link = None if unlinked else self._link(model, dataset, model_id)
        record_metrics(self, metrics, step, timestamp, link)

    def _link(self, model: Any, dataset: Any, model_id: str | None) -> Link | None:
        """What points say of a model and data; None where they say nothing."""
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
            value: anything; what is not a plain value is recorded by its type, never by its `repr`.
            synchronous: as for `log_metric`.
        """
        with guarded("log_param", self):
            self._add_params([name_first(key, value)])

    @explained
    def log_params(self, params: Any, *, synchronous: bool | None = None) -> None:  # noqa: ARG002 - as above
        """Record several parameters; see `log_param`.

        Args:
            params: a mapping, or what has named parts like one: an `argparse.Namespace`, a dataclass, a NamedTuple, a
                model of pydantic or attrs, a configuration of OmegaConf.
            synchronous: as for `log_param`.
        """
        with guarded("log_params", self):
            self._add_params(named_parts(params).items())

    @explained
    def set_tag(self, key: str, value: Any, *, synchronous: bool | None = None) -> None:  # noqa: ARG002 - as above
        """Set a tag; a later value of the same name replaces it.

        Args:
            key: its name.
            value: its value, as text.
            synchronous: as for `log_metric`.
        """
        with guarded("set_tag", self):
            append_tags(self, _artifacts.keep_long(self, tags_of([name_first(key, value)])))

    @explained
    def set_tags(self, tags: Mapping[str, Any], *, synchronous: bool | None = None) -> None:  # noqa: ARG002 - as above
        """Set several tags; see `set_tag`."""
        with guarded("set_tags", self):
            append_tags(self, _artifacts.keep_long(self, clean_tags(tags)))

    @explained
    def log_artifact(self, local_path: Any, artifact_path: str | os.PathLike[str] | None = None) -> None:
        """Record a file or folder as it is now; it may be changed or deleted right after.

        Args:
            local_path: the file or folder, or a list of these. With an `artifact_path`, any other object, which is
                written to a file of the format that the suffix names.
            artifact_path: where to put it in the run. With a suffix (`"models/best.pth"`) it is the file's own new
                path, without one (`"models"`) the folder that the file goes to, under its own name.

        Raises:
            OptionError: an object that is no path, and no path for it.
        """
        source, place = file_in_order(local_path, artifact_path)
        with guarded("log_artifact", self):
            _artifacts.keep_given(self, source, place)

    @explained
    def log_artifacts(
        self, local_dir: str | os.PathLike[str], artifact_path: str | os.PathLike[str] | None = None
    ) -> None:
        """Record everything inside a folder.

        Args:
            local_dir: the folder.
            artifact_path: the folder of the run to put its content in; the top by default.
        """
        source, place = file_in_order(local_dir, artifact_path)
        with guarded("log_artifacts", self):
            _artifacts.snapshot_content(self, _artifacts.named(source), place)

    @explained
    def log_dict(self, dictionary: Any, artifact_file: str) -> None:
        """Record a dictionary or list as a JSON file (YAML where the name ends in `.yaml` or `.yml`).

        Args:
            dictionary: dicts, lists, and what has such content: arrays and tensors are lists, frames are lists of
                records, dates are text in the form of ISO, sets are lists. What JSON cannot hold (bytes, pictures,
                arrays of over 100,000 cells, objects) is a file of its own, which a tag `trackdsl.omitted.…` names.
            artifact_file: its path in the run, such as `config.json`.
        """
        dictionary, artifact_file = in_order("log_dict", dictionary, artifact_file, "dictionary")
        with guarded("log_dict", self):
            _artifacts.write_structure(self, dictionary, artifact_file)

    @explained
    def log_text(self, text: str, artifact_file: str) -> None:
        """Record text as a UTF-8 file.

        Args:
            text: the content.
            artifact_file: its path in the run, such as `status.txt`.
        """
        text, artifact_file = in_order("log_text", text, artifact_file, "text")
        with guarded("log_text", self):
            _artifacts.write_text(self, text, artifact_file)

    @explained
    def log_figure(self, figure: Any, artifact_file: str, *, save_kwargs: Mapping[str, Any] | None = None) -> None:
        """Record a figure as a file.

        Args:
            figure: of matplotlib (or its axes), seaborn, plotly, altair or bokeh; the module `matplotlib.pyplot` is its
                current figure; or a list or dict of these, each of which is a file (`roc.0.png`, or with its key).
            artifact_file: its path in the run; the suffix names the format: `.png`, `.svg`, `.pdf`, `.html`, `.json`.
                Without one it is `.png`, or `.html` for what is a page.
            save_kwargs: what matplotlib's `savefig`, or plotly's `write_html` or `write_image`, is to be told.

        Raises:
            OptionError: the path is none.

        Example:
            >>> run.log_figure(figure, "plots/loss.png", save_kwargs={"dpi": 200})  # doctest: +SKIP
        """
        figure, artifact_file = in_order("log_figure", figure, artifact_file, "figure")
        with guarded("log_figure", self):
            _images.record_figure(self, figure, artifact_file, dict(save_kwargs or {}))

    @explained
    def log_image(
        self,
        image: Any,
        artifact_file: str | None = None,
        *,
        key: str | None = None,
        step: int | None = None,
        timestamp: int | None = None,
        synchronous: bool | None = None,  # noqa: ARG002 - as above
    ) -> None:
        """Record an image: as one file, or as one of a series, which MLflow shows with a slider over the steps.

        Args:
            image: an array or tensor of height by width, with 1, 3 or 4 channels last or first, of truth values,
                integers from 0 to 255 (`uint16` up to 65535), or floats from 0 to 1 (others are rescaled to that); an
                image of Pillow's, of any mode, or an `mlflow.Image`; or several: a batch, a list, or a dict of these.
            artifact_file: its path in the run, such as `samples/first.png`; several are `samples/first.0.png`, …
            key: the name of the series, instead of a path; several are the series `key/0`, …
            step: its place in the series; the step of the enclosing `steps` loop by default, else 0.
            timestamp: when it was made, in milliseconds since 1970, for one of a series; now by default.
            synchronous: as for `log_metric`.

        Raises:
            OptionError: both `artifact_file` and `key` are given, or neither.

        Example:
            >>> run.log_image(sample, key="samples", step=3)  # doctest: +SKIP
        """
        if (artifact_file is None) == (key is None) or (step is not None and key is None):
            raise OptionError(
                "log_image takes either a path, log_image(image, 'samples/first.png'), or the key of a series, "
                "log_image(image, key='samples', step=3).",
                option="key" if artifact_file is None or key is not None else "step",
            )
        with guarded("log_image", self):
            if key is None:
                image, artifact_file = in_order("log_image", image, artifact_file, "image")
                _images.record_image(self, image, artifact_file)
            else:
                key, image = name_first(key, image)
                place = int(_context.step_of(self) if step is None else step)
                _images.record_frame(self, image, name_of_key(key), place, timestamp)

    @explained
    def log_table(self, data: Any, artifact_file: str) -> None:
        """Append rows to a table; the first call makes it. `mlflow.load_table` reads it back.

        Args:
            data: a dict of columns (lists, or one value for all rows), a list of dicts, or a frame of pandas, polars or
                pyarrow. Columns may differ from call to call; images in cells become files.
            artifact_file: the table's path in the run, which ends in `.json` or `.parquet`.

        Raises:
            OptionError: the path is none that a table can have.

        Example:
            >>> run.log_table({"question": ["2 + 2"], "answer": [4]}, "answers.json")  # doctest: +SKIP
        """
        data, artifact_file = in_order("log_table", data, artifact_file, "data")
        with guarded("log_table", self):
            _tables.append_table(self, data, artifact_file)

    @explained
    def log_input(
        self, dataset: Any, context: str | None = None, *, name: str | None = None
    ) -> _datasets.RecordedDataset | None:
        """Record data as an input of the run, with a digest of all of it.

        Args:
            dataset: a frame, an array, or an `mlflow.data.Dataset`.
            context: what it is used for, such as `training`.
            name: its name; that of the `mlflow.data.Dataset`, or `dataset`, by default.

        Returns:
            what names it for `log_metric(..., dataset=...)`; None where it could not be recorded.

        Example:
            >>> run.log_input(frame, "training", name="churn-2024")  # doctest: +SKIP
        """
        if isinstance(dataset, str) and context is not None and not isinstance(context, str):
            dataset, context = context, dataset  # The two the other way round.
        with guarded("log_input", self):
            return _datasets.record_input(self, dataset, name or "", context)
        return None

    @explained
    def log_model(
        self,
        model: Any,
        name: str | None = None,
        *,
        registered_model_name: str | None = None,
        signature: Any = None,
        input_example: Any = None,
        pip_requirements: Sequence[str] | str | os.PathLike[str] | None = None,
        code_paths: Sequence[str | os.PathLike[str]] | None = None,
        step: int | None = None,
        **options: Any,
    ) -> RecordedModel:
        """Record a model, which `mlflow.pyfunc.load_model` and `trackdsl.load_model` can load.

        Estimators of scikit-learn are written by cloudpickle: the format that MLflow takes by itself, skops, refuses
        every type that nobody has named as trusted, a forest among them.

        Args:
            model: an estimator, a network, or anything else that a handler knows for a model; or a list or dict of
                these, which are models of their own, named `classifier.0`, …
            name: its name; `artifact_path`, MLflow's older word for it, is taken too.
            registered_model_name: the model of the registry that it is to be a new version of.
            signature: an `mlflow.models.ModelSignature`; inferred from the example, and what the model answers to it,
                by default.
            input_example: data that the model takes.
            pip_requirements: what loading it needs, as a list or the path of a file; by default the installed versions
                of the packages it refers to.
            code_paths: files and folders of modules that loading it needs, as in `mlflow.sklearn.log_model`; by default
                the project's own modules that its pickle refers to, and those that they import. `[]` for none.
            step: the step it belongs to, whose metrics become its own; that of the enclosing `steps` loop by default,
                else 0.
            options: what `log_model` of MLflow's flavour takes beside: `serialization_format` for scikit-learn and
                LightGBM, `pickle_module` for PyTorch, `artifacts` and `model_config` for a `PythonModel`,
                `model_format` for XGBoost; `metadata`, `params`, `tags`, `model_type` and `extra_pip_requirements` for
                all.

        Returns:
            a handle, by which the model can be loaded and registered, and metrics be given to it; for several models a
            list or dict of handles.

        Raises:
            OptionError: no name, or one that no registered model can have, a signature or requirements that are none,
                or an option that the model's flavour does not take.

        Example:
            >>> run.log_model(model, "classifier", input_example=frame.head())  # doctest: +SKIP
        """
        # It brings what a program without models need not wait for.
        from trackdsl._recording.models import check_model_options, models_in, record_model
        from trackdsl._recording.recorded_model import RecordedModel

        model, name = model_in_order(model, name, options)
        if several := models_in(model):
            same = dict(options, registered_model_name=registered_model_name, signature=signature, step=step)
            same.update(input_example=input_example, pip_requirements=pip_requirements, code_paths=code_paths)
            handles = {key: self.log_model(one, f"{name}.{key}", **same) for key, one in several.items()}
            # Typed for the one model that it nearly always is.
            return handles if isinstance(model, Mapping) else list(handles.values())  # type: ignore[return-value]
        check_registered_name(registered_model_name)
        check_model_options(model, signature, pip_requirements, code_paths, options)
        recorded: Model | str = "it could not be written; a warning says why"
        with guarded("log_model", self):
            recorded = record_model(
                self,
                model,
                name,
                registered_model_name=registered_model_name,
                step=_context.step_of(self) if step is None else step,
                signature=signature,
                input_example=input_example,
                pip_requirements=pip_requirements,
                code_paths=code_paths,
                options=options,
            )
        return RecordedModel(self, name, recorded)

    @explained
    def end(self, status: str = FINISHED, reason: str | None = None) -> None:
        """End the run now, with a status of your choice; the block, call or session that it is of ends it no more.

        What is recorded on it afterwards still goes to it. A later call of this sets another status.

        Args:
            status: `FINISHED`, `FAILED` or `KILLED`.
            reason: why, in a sentence: the tag `trackdsl.ended`.

        Raises:
            OptionError: there is no such status.

        Example:
            >>> run.end("FAILED", "the loss diverged")  # doctest: +SKIP
        """
        status = checked_status(status, "end()")
        with guarded("end", self):
            if reason is not None:
                append_tags(self, tags_of([(ENDED, reason)]))
            end_early(self, status)

    def _add_params(self, pairs: Iterable[tuple[Any, Any]]) -> None:
        flat = params_of(pairs)
        append_params(self, _artifacts.keep_long(self, flat.values))
        _artifacts.keep_whole(self, flat)

    def next_index(self, name: str) -> int:
        """How many children or sections called `name` this run has had before."""
        counter = self._children.get(name)
        if counter is None:
            counter = self._children.setdefault(name, itertools.count())
        return next(counter)

    def __enter__(self) -> NoReturn:
        raise OptionError(
            'a run is begun already, and is no block: write `with experiment("a-name") as run:` or '
            '`with stage("a-name") as run:`. A session ends by stop_logging().',
            option="with",
        )

    __aenter__ = __enter__

    def __exit__(self, *_: object) -> None: ...

    async def __aexit__(self, *_: object) -> None: ...

    def __repr__(self) -> str:
        return f"<Run {self.path!r} {self.id}>"


def _named(run: Run, model: Any) -> str:
    """What names the model that metrics belong to; empty where there is none, and a tag says so if it should."""
    found = named_model(model) if model is not None else ""
    if found is None:
        reason = f"{class_name(model)} is no model that MLflow holds: give what log_model has returned, or a model's id"
        append_tags(run, {"trackdsl.omitted.log_metrics.model": reason})
        report("linked", f"trackdsl: log_metrics(model=...): {reason}", key=reason)
    return found or ""


def _only(option: str, value: Any, other: str, also: Any) -> Any:
    """The one of two arguments that is given, which are names of the same.

    Raises:
        OptionError: both are, or neither.
    """
    if value is None and also is None:
        raise OptionError(f"the {option} is missing, as in log_metric('loss', 0.25).", option=option)
    if value is not None and also is not None:
        given = f"{option}={value!r} and {other}={also!r}"
        raise OptionError(f"{given} are names of the same: give one of them.", option=other)
    return also if value is None else value


def checked_status(status: Any, called: str) -> str:
    """A status that a run can end with.

    Raises:
        OptionError: it is none.
    """
    name = status.upper() if isinstance(status, str) else ""
    if name not in STATUSES:
        hint = suggestion_for(name, STATUSES)
        message = f"{called} takes {', '.join(STATUSES)} as a status, not {status!r}{hint.text}"
        raise OptionError(message, option="status", suggestion=hint.name)
    return name


def _no_end(_run: Run, _status: str) -> None: ...


#: Ends a run before the block, call or session that it is of. The module that ends runs, which needs this one, puts it
#: here.
end_early: Callable[[Run, str], None] = _no_end
#: The tag that says why a run has ended as it did.
ENDED = "trackdsl.ended"


class AdoptedRun(Run):
    """A run that plain MLflow opened and will end.

    Attributes:
        mlflow_run_id: MLflow's id of it.
        mlflow_experiment_id: MLflow's id of its experiment.
    """

    __slots__ = ("mlflow_experiment_id", "mlflow_run_id")

    mlflow_run_id: str
    mlflow_experiment_id: str

    def wait_for_mlflow(self, timeout: float | None = None) -> Any:
        """See `Run`: it is there already, unless only one of its ids is known."""
        if not self.mlflow_experiment_id:
            return super().wait_for_mlflow(timeout)
        from trackdsl.store_format.known_runs import KnownRun

        return KnownRun(self.mlflow_run_id, self.mlflow_experiment_id)

    def _ask_for(self) -> None:
        """Nobody has to look for it."""


class ContinuedRun(Run):
    """A run that an earlier program or scope began, and that goes on here.

    Attributes:
        goes_on: the id that it was named by: ours, or MLflow's.
    """

    __slots__ = ("goes_on",)

    goes_on: str

    @property
    def id(self) -> str:
        """The id that the run was named by, which finds it everywhere: MLflow's, where it was not one of ours."""
        return self.goes_on


#: Ours end in a count of 48 bits, which no program comes far in; MLflow's are random to the end.
_OURS = re.compile(r"[0-9a-f]{20}0000[0-9a-f]{8}")
#: What MLflow takes for the id of a run.
_RUN_ID = re.compile(r"[a-zA-Z0-9][\w-]{0,255}", re.ASCII)


def is_ours(id_: str) -> bool:
    """Whether a run's id looks like one of ours, and not like MLflow's.

    >>> is_ours("8f14e45fceea167a5a36" + "000000000001"), is_ours("8f14e45fceea467a8a36dedd4bea2543")
    (True, False)
    """
    return _OURS.fullmatch(id_) is not None


def adoption_of(run: Run) -> tuple[str, str] | None:
    """How other processes name a run that they cannot find by its id here: MLflow's ids of it and its experiment."""
    if isinstance(run, AdoptedRun):
        return run.mlflow_run_id, run.mlflow_experiment_id
    return (run.goes_on, "") if isinstance(run, ContinuedRun) else None


def checked_run_id(value: Any, called: str) -> str | Run | None:
    """The run that is to go on: an id as text, or one of our runs; None where the handle is that of no recording.

    Args:
        value: an id of ours or of MLflow's, a `Run`, a run of MLflow's, or one that `best` or `runs` has found.
        called: what the user calls it, for the message.

    Raises:
        OptionError: it names no run.
    """
    if isinstance(value, Run):
        return None if value is NULL_RUN else value
    info = getattr(value, "info", None)
    text = value if isinstance(value, str) else getattr(value, "run_id", None) or getattr(info, "run_id", None)
    if not isinstance(text, str) or not _RUN_ID.fullmatch(text):
        raise OptionError(
            f"{called} takes the id of a run, trackdsl's or MLflow's, or a run itself, such as trackdsl.last(); "
            f"not {value!r}.",
            option="run_id",
        )
    return text


class _NullRun(Run):
    """The handle where nothing is recorded: every method does nothing."""

    __slots__ = ()


def _record_nothing(*_: Any, **__: Any) -> None: ...


def _record_no_model(_self: Run, _model: Any, name: str, **_options: Any) -> RecordedModel:
    from trackdsl._recording.recorded_model import unrecorded

    return unrecorded(name, "tracking is switched off")


for _name in [name for name in vars(Run) if name.startswith(("log_", "set_", "end"))]:
    setattr(_NullRun, _name, _record_no_model if _name == "log_model" else _record_nothing)

NULL_RUN: Run = _NullRun(bytes(16), "disabled", None, "disabled", None, Target("disabled", "/", deliver=False))
