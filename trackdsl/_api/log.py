"""Functions that record on the current run."""

from __future__ import annotations

import inspect
import os
import textwrap
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, overload

from trackdsl._config.state import state
from trackdsl._core import context as _context
from trackdsl._core.argument_order import model_in_order
from trackdsl._core.missing_call import explained
from trackdsl._decorate.parentage import run_around, run_outside
from trackdsl._recording.datasets import RecordedDataset
from trackdsl._recording.emit import NOT_GIVEN, record_metric
from trackdsl._runs import lifecycle as _lifecycle
from trackdsl._runs.run import NULL_RUN, Run

if TYPE_CHECKING:
    from trackdsl._runs.recorded_model import RecordedModel


def current_run() -> Run | None:
    """The current run, or None.

    Example:
        >>> current_run() is None
        True
    """
    scope = _context.current()
    return scope.run if scope is not None else run_around()


def last() -> Run | None:
    """The last root run that this program or notebook has started, open or ended. None before the first one.

    Each decorated function also has `fn.last_run`, the run of its newest call.

    Returns:
        the run. If trackdsl is disabled and no run was recorded before, a handle that records nothing.

    Example:
        >>> run = last()
        >>> None if run is None else run.url  # doctest: +SKIP
        'http://127.0.0.1:5000/#/experiments/1/runs/9e514b2ff11b08475a98000000000001'
    """
    return _lifecycle.newest_root() or (NULL_RUN if state.disabled else None)


@overload
def log_metric(
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
    name: Any = None,
    value: Any = NOT_GIVEN,
    step: int | None = None,
    synchronous: bool | None = None,  # noqa: ARG001 - the point is durable when this returns
    timestamp: int | None = None,
    key: str | None = None,
    model: Any = None,
    dataset: Any = None,
    model_id: str | None = None,
    iteration: int | None = None,
) -> None:
    """Record one point of a metric on the current run; see `Run.log_metric`."""
    # The options are not keyword-only here, because such calls are slower. For type checkers and `help` they are.
    scope = _context.current()
    if scope is not None and name is not None and key is None is iteration is timestamp is model is dataset is model_id:
        record_metric(scope.run, name, value, scope.step if step is None else step)
    elif run := run_outside("log_metric") if scope is None else scope.run:
        more = {
            "iteration": iteration,
            "timestamp": timestamp,
            "model": model,
            "dataset": dataset,
            "model_id": model_id,
        }
        run.log_metric(name, value, step, key=key, **more)  # type: ignore[call-overload] # either


def log_metrics(
    metrics: Any,
    step: int | None = None,
    *,
    iteration: int | None = None,
    timestamp: int | None = None,
    synchronous: bool | None = None,  # noqa: ARG001 - MLflow has this argument; nothing here waits
    model: Any = None,
    dataset: Any = None,
    model_id: str | None = None,
) -> None:
    """Record points of several metrics, or of series, on the current run; see `Run.log_metrics`."""
    if run := _run("log_metrics"):
        if (
            iteration is timestamp is model is dataset is model_id is None
        ):  # Passing keywords costs as much as recording a point.
            run.log_metrics(metrics, step)
        else:
            more = {"timestamp": timestamp, "model": model, "dataset": dataset, "model_id": model_id}
            run.log_metrics(metrics, step, iteration=iteration, **more)


@explained
def log_param(key: str, value: Any, *, synchronous: bool | None = None) -> None:
    """Record a parameter of the current run; see `Run.log_param`."""
    if run := _run("log_param"):
        run.log_param(key, value, synchronous=synchronous)


@explained
def log_params(params: Any, *, synchronous: bool | None = None) -> None:
    """Record several parameters of the current run; see `Run.log_params`."""
    if run := _run("log_params"):
        run.log_params(params, synchronous=synchronous)


@explained
def set_tag(key: str, value: Any, *, synchronous: bool | None = None) -> None:
    """Set a tag of the current run; see `Run.set_tag`."""
    if run := _run("set_tag"):
        run.set_tag(key, value, synchronous=synchronous)


@explained
def set_tags(tags: Mapping[str, Any], *, synchronous: bool | None = None) -> None:
    """Set several tags of the current run; see `Run.set_tags`."""
    if run := _run("set_tags"):
        run.set_tags(tags, synchronous=synchronous)


@explained
def log_artifact(local_path: Any, artifact_path: str | os.PathLike[str] | None = None) -> None:
    """Record a file or folder, as it is now, on the current run; see `Run.log_artifact`."""
    if run := _run("log_artifact"):
        run.log_artifact(local_path, artifact_path)


@explained
def log_artifacts(local_dir: str | os.PathLike[str], artifact_path: str | os.PathLike[str] | None = None) -> None:
    """Record the content of a folder on the current run; see `Run.log_artifacts`."""
    if run := _run("log_artifacts"):
        run.log_artifacts(local_dir, artifact_path)


@explained
def log_dict(dictionary: Any, artifact_file: str) -> None:
    """Record a dictionary as JSON or YAML on the current run; see `Run.log_dict`."""
    if run := _run("log_dict"):
        run.log_dict(dictionary, artifact_file)


@explained
def log_text(text: str, artifact_file: str) -> None:
    """Record text as a file on the current run; see `Run.log_text`."""
    if run := _run("log_text"):
        run.log_text(text, artifact_file)


@explained
def log_figure(figure: Any, artifact_file: str, *, save_kwargs: Mapping[str, Any] | None = None) -> None:
    """Record a figure as a file on the current run; see `Run.log_figure`."""
    if run := _run("log_figure"):
        run.log_figure(figure, artifact_file, save_kwargs=save_kwargs)


@explained
def log_image(
    image: Any,
    artifact_file: str | None = None,
    *,
    key: str | None = None,
    step: int | None = None,
    timestamp: int | None = None,
    synchronous: bool | None = None,
) -> None:
    """Record an image, or one of a series, on the current run; see `Run.log_image`."""
    if run := _run("log_image"):
        run.log_image(image, artifact_file, key=key, step=step, timestamp=timestamp, synchronous=synchronous)


@explained
def log_table(data: Any, artifact_file: str) -> None:
    """Append rows to a table of the current run; see `Run.log_table`."""
    if run := _run("log_table"):
        run.log_table(data, artifact_file)


@explained
def log_input(dataset: Any, context: str | None = None, *, name: str | None = None) -> RecordedDataset | None:
    """Record data as an input of the current run; see `Run.log_input`."""
    run = _run("log_input")
    return run.log_input(dataset, context, name=name) if run else None


@explained
def log_model(
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
    """Record a model on the current run; see `Run.log_model`."""
    run = _run("log_model")
    if run is None:
        from trackdsl._runs.recorded_model import unrecorded

        return unrecorded(model_in_order(model, name, options)[1], "there was no run")
    return run.log_model(
        model,
        name,
        registered_model_name=registered_model_name,
        signature=signature,
        input_example=input_example,
        pip_requirements=pip_requirements,
        code_paths=code_paths,
        step=step,
        **options,
    )


def _run(doing: str) -> Run | None:
    scope = _context.current()
    return scope.run if scope is not None else run_outside(doing)


def _complete_help() -> None:
    """Give each function the docstring of the method of the same name."""
    for name, fn in list(globals().items()):
        method = getattr(Run, name, None) if name.startswith(("log_", "set_")) else None
        if method is not None and method.__doc__:
            summary = fn.__doc__.partition("; see ")[0]
            details = textwrap.dedent(method.__doc__.partition("\n\n")[2]).replace(">>> run.", ">>> ")
            fn.__doc__ = f"{summary}.\n\n{details}" if details else f"{summary}."


_complete_help()
_method = inspect.signature(Run.log_metric)
log_metric.__signature__ = _method.replace(  # type: ignore[attr-defined] # The comment in `log_metric` says why it differs.
    parameters=list(_method.parameters.values())[1:]
)
