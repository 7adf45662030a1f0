"""What users record on a run as files: artifacts, figures, images, tables, datasets and models."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from trackdsl._core import context as _context
from trackdsl._core.argument_order import file_in_order, in_order, model_in_order, name_first
from trackdsl._core.events import Model
from trackdsl._core.handle import RunHandle
from trackdsl._core.missing_call import explained
from trackdsl._recording import artifacts as _artifacts
from trackdsl._recording import datasets as _datasets
from trackdsl._recording import images as _images
from trackdsl._recording import tables as _tables
from trackdsl._recording.emit import guarded
from trackdsl.errors import OptionError
from trackdsl.handlers._scalar_text import name_of_key
from trackdsl.markers import check_registered_name

if TYPE_CHECKING:
    from trackdsl._recording.recorded_model import RecordedModel


class FileMethods(RunHandle):
    """The methods of `Run` that record files, datasets and models."""

    __slots__ = ()

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
        synchronous: bool | None = None,  # noqa: ARG002 - what is recorded is safe when this returns
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
