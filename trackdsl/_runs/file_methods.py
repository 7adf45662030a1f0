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
    from trackdsl._runs.recorded_model import RecordedModel


class FileMethods(RunHandle):
    """The methods of `Run` that record files, datasets and models."""

    __slots__ = ()

    @explained
    def log_artifact(self, local_path: Any, artifact_path: str | os.PathLike[str] | None = None) -> None:
        """Record a file or folder as it is now; you may change or delete it right after.

        Args:
            local_path: the file or folder, or a list of these. With an `artifact_path` also any other object, which is
                written as a file; the suffix of `artifact_path` selects the format.
            artifact_path: its path in the run. With a suffix (`"models/best.pth"`) it is the new path of the file
                itself; without a suffix (`"models"`) it is the folder that the file is put into, under its own name.

        Raises:
            OptionError: `local_path` is not a path, and there is no `artifact_path`.

        Example:
            >>> run.log_artifact("plots/loss.png", "plots")  # doctest: +SKIP
            >>> run.log_artifact("model.pth", "models/best.pth")  # doctest: +SKIP
        """
        source, path = file_in_order(local_path, artifact_path)
        with guarded("log_artifact", self):
            _artifacts.keep_given(self, source, path)

    @explained
    def log_artifacts(
        self, local_dir: str | os.PathLike[str], artifact_path: str | os.PathLike[str] | None = None
    ) -> None:
        """Record the content of a folder.

        Args:
            local_dir: the folder.
            artifact_path: the folder of the run for this content; the run's top folder by default.

        Raises:
            OptionError: `local_dir` is not a path.

        Example:
            >>> run.log_artifacts("plots", "figures")  # doctest: +SKIP
        """
        source, path = file_in_order(local_dir, artifact_path)
        with guarded("log_artifacts", self):
            _artifacts.snapshot_content(self, _artifacts.named(source), path)

    @explained
    def log_dict(self, dictionary: Any, artifact_file: str) -> None:
        """Record a dictionary or list as a JSON file (YAML where the name ends in `.yaml` or `.yml`).

        Args:
            dictionary: dicts, lists, and objects with such content: arrays, tensors and sets become lists, frames
                become lists of records, dates become ISO text. Values that JSON cannot hold (bytes, images, arrays of
                over 100,000 cells, objects) become files of their own, which a tag `trackdsl.omitted.…` names.
            artifact_file: its path in the run, such as `config.json`.

        Raises:
            OptionError: `artifact_file` is not a path.

        Example:
            >>> run.log_dict({"lr": 0.1, "layers": [64, 32]}, "config.json")  # doctest: +SKIP
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

        Raises:
            OptionError: `artifact_file` is not a path.

        Example:
            >>> run.log_text("the loss diverged at step 30", "status.txt")  # doctest: +SKIP
        """
        text, artifact_file = in_order("log_text", text, artifact_file, "text")
        with guarded("log_text", self):
            _artifacts.write_text(self, text, artifact_file)

    @explained
    def log_figure(self, figure: Any, artifact_file: str, *, save_kwargs: Mapping[str, Any] | None = None) -> None:
        """Record a figure as a file.

        Args:
            figure: a figure of matplotlib (or its axes), seaborn, plotly, altair or bokeh; the module
                `matplotlib.pyplot`, for its current figure; or a list or dict of these, which become one file each
                (`roc.0.png`, or with the key).
            artifact_file: its path in the run; the suffix selects the format: `.png`, `.svg`, `.pdf`, `.html`, `.json`.
                Without a suffix it is `.png`, or `.html` for figures of libraries that draw web pages.
            save_kwargs: further arguments of matplotlib's `savefig`, or plotly's `write_html` or `write_image`.

        Raises:
            OptionError: `artifact_file` is not a path.

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
        synchronous: bool | None = None,  # noqa: ARG002 - it is durable when this returns
    ) -> None:
        """Record an image: as one file, or as one of a series, which MLflow shows with a slider over the steps.

        Args:
            image: an array or tensor of height by width, with 1, 3 or 4 channels last or first, of booleans, integers
                from 0 to 255 (`uint16` up to 65535), or floats from 0 to 1 (other floats are rescaled to that range);
                a Pillow image of any mode, or an `mlflow.Image`; or several: a batch, a list, or a dict of these.
            artifact_file: its path in the run, such as `samples/first.png`; several are `samples/first.0.png`, …
            key: the name of the series, instead of a path; several are the series `key/0`, …
            step: its step in the series; the step of the enclosing `steps` loop by default, else 0.
            timestamp: when it was made, in milliseconds since 1970, for an image of a series; now by default.
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
                frame_step = int(_context.step_of(self) if step is None else step)
                _images.record_frame(self, image, name_of_key(key), frame_step, timestamp)

    @explained
    def log_table(self, data: Any, artifact_file: str) -> None:
        """Append rows to a table; the first call makes it. `mlflow.load_table` reads it back.

        Args:
            data: a dict of columns (lists, or one value for all rows), a list of dicts, or a frame of pandas, polars or
                pyarrow. The columns may differ from call to call. Images in cells become files.
            artifact_file: the table's path in the run, which ends in `.json` or `.parquet`.

        Raises:
            OptionError: a table cannot have this path.

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
        """Record data as an input of the run, with a digest of its whole content.

        Args:
            dataset: a frame, an array, or an `mlflow.data.Dataset`.
            context: what it is used for, such as `training`.
            name: its name; that of the `mlflow.data.Dataset`, or `dataset`, by default.

        Returns:
            a reference to it for `log_metric(..., dataset=...)`; None if it could not be recorded.

        Example:
            >>> run.log_input(frame, "training", name="churn-2024")  # doctest: +SKIP
        """
        if isinstance(dataset, str) and context is not None and not isinstance(context, str):
            dataset, context = context, dataset  # They were given in the other order.
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

        Estimators of scikit-learn are written by cloudpickle. MLflow's default format, skops, refuses every type that
        is not listed as trusted, such as a random forest.

        Args:
            model: an estimator, a network, or another object that a handler recognizes as a model; or a list or dict
                of these, which become separate models named `classifier.0`, …
            name: its name; MLflow's older name of this argument, `artifact_path`, is accepted too.
            registered_model_name: register it as a new version of this model of the registry.
            signature: an `mlflow.models.ModelSignature`; by default it is inferred from the input example and the
                model's prediction for it.
            input_example: an example of the model's input.
            pip_requirements: the packages that loading it needs, as a list or the path of a file; by default the
                installed versions of the packages that the model refers to.
            code_paths: files and folders of modules that loading it needs, as in `mlflow.sklearn.log_model`; by default
                the project's own modules that its pickle refers to, and the modules that these import. `[]` for none.
            step: the step it belongs to: metrics of this step become metrics of the model; the step of the enclosing
                `steps` loop by default, else 0.
            options: further options of MLflow's flavour: `serialization_format` for scikit-learn and
                LightGBM, `pickle_module` for PyTorch, `artifacts` and `model_config` for a `PythonModel`,
                `model_format` for XGBoost; `metadata`, `params`, `tags`, `model_type` and `extra_pip_requirements` for
                all.

        Returns:
            a handle, which can load and register the model, and which `log_metric(..., model=...)` accepts; for several
            models a list or dict of handles.

        Raises:
            OptionError: there is no name, the registered name is impossible, the signature or the requirements are
                invalid, or the model's flavour has no such option.

        Example:
            >>> run.log_model(model, "classifier", input_example=frame.head())  # doctest: +SKIP
        """
        # These import much, which a program without models does not need.
        from trackdsl._recording.model_options import check_model_options
        from trackdsl._recording.models import models_in, record_model
        from trackdsl._runs.recorded_model import RecordedModel

        model, name = model_in_order(model, name, options)
        if several := models_in(model):
            same = dict(options, registered_model_name=registered_model_name, signature=signature, step=step)
            same.update(input_example=input_example, pip_requirements=pip_requirements, code_paths=code_paths)
            handles = {key: self.log_model(one, f"{name}.{key}", **same) for key, one in several.items()}
            # The type is that of one model, which is the usual case.
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
