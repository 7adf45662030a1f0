"""Reads of plain MLflow wait, for a limited time, until what the program has recorded is delivered.

So do calls that change or end a recorded run, and calls that write what the run may already have: the later of two
values has to be written last.

Only calls of the program itself wait. Reads inside of MLflow or trackdsl do not, as they may be part of the delivery.
"""

from __future__ import annotations

import inspect
import os
import sys
from collections.abc import Callable
from types import FrameType
from typing import Any

import mlflow
from mlflow import artifacts

from trackdsl._config import resolve as settings
from trackdsl._core.redaction import mask_text
from trackdsl._runs.lifecycle import is_named
from trackdsl.errors import TrackdslError, format_error, report, reraise_from_signal
from trackdsl.journal._origin import Origin
from trackdsl.journal._target import targets
from trackdsl.mlflow_bridge import _private
from trackdsl.mlflow_bridge._replacing import Function, replace_everywhere, replacement
from trackdsl.mlflow_bridge._wait_for_run import same_store

#: Returns the URIs of the stores and model registries that a call uses.
StoresOf = Callable[[tuple[Any, ...], dict[str, Any]], list[Any]]

_FLUENT = (
    *("create_experiment", "delete_experiment", "delete_logged_model_tag", "delete_run", "get_experiment"),
    *("get_experiment_by_name", "get_logged_model", "get_parent_run", "get_run", "get_trace", "last_active_run"),
    *("last_logged_model", "load_table", "register_model", "restore_experiment", "restore_run", "search_experiments"),
    *("search_logged_models", "search_model_versions", "search_registered_models", "search_runs", "search_traces"),
    *("set_active_model", "set_logged_model_tags", "set_model_version_tag"),
)
_ARTIFACTS = ("download_artifacts", "list_artifacts", "load_dict", "load_image", "load_text")
#: The prefixes of the client methods that read, or that change or remove recorded values.
_OF_CLIENT = (
    *("copy_", "create_experiment", "create_model_version", "create_registered_model", "delete_", "download_", "get_"),
    *("link_", "list_", "load_", "rename_", "restore_", "search_", "set_logged_model", "set_model_version"),
    *("set_registered_model", "set_terminated", "transition_", "update_"),
)
#: Functions that write what a run may already have, so that the later value has to be written last. Metrics are not
#: among them: they have timestamps, and loops log them in every step.
_TO_RUNS = (
    *("delete_tag", "log_artifact", "log_artifacts", "log_dict", "log_figure", "log_image", "log_param", "log_params"),
    *("log_table", "log_text", "set_tag", "set_tags"),
)
#: The schemes of artifact URIs that lead to a run or model. Any other URI is that of a folder.
_RECORDED = ("runs:", "models:")
_MLFLOW = ("mlflow.",)
#: The parts of trackdsl that read MLflow, and wait for delivery themselves. The wrappers of user functions are
#: excluded, because the program's code runs in their frames.
OURS = tuple(
    f"trackdsl.{name}."
    for name in (
        "_runs.model_registry",
        "_runs.fetching",
        "cli",
        "delivery",
        "mlflow_bridge",
        "query",
        "store_format",
    )
)


def install() -> None:
    """Make the reads of plain MLflow wait for delivery.

    Raises:
        _private.Moved: this MLflow loads models in an unknown way. All other reads wait.
    """
    for name in dir(mlflow.MlflowClient):
        method = getattr(mlflow.MlflowClient, name)
        if inspect.isfunction(method) and (name in _TO_RUNS or name.startswith(_OF_CLIENT)):
            setattr(mlflow.MlflowClient, name, _waiting(method, _of_clients_run if name in _TO_RUNS else _of_client))
    replacing: dict[Function, Function] = {}
    for module, names, asked in (
        (mlflow, _FLUENT, _of_program),
        (mlflow, _TO_RUNS, _of_active_run),
        (mlflow, ("start_run",), _of_resumed_run),
        (artifacts, _ARTIFACTS, _given),
    ):
        functions = [getattr(module, name, None) for name in names]
        replacing |= {function: _waiting(function, asked) for function in functions if inspect.isfunction(function)}
    replace_everywhere(replacing)
    _private.take_artifact_repositories(_before_artifacts)


def _waiting(original: Function, asked: StoresOf) -> Function:
    def read(*args: Any, **kwargs: Any) -> Any:
        if not is_of(sys._getframe(1), _MLFLOW + OURS):
            _wait(lambda: asked(args, kwargs))
        return original(*args, **kwargs)

    return replacement(original, read)


def _before_artifacts(artifact_uri: object, tracking_uri: str | None) -> None:
    """Wait before MLflow resolves the URI of an artifact or model, as every `load_model` does."""
    if not str(artifact_uri).startswith(_RECORDED):
        return
    frame: FrameType | None = sys._getframe(2)
    # Find the caller: the first frame outside of MLflow and of our replacements.
    while frame is not None and is_of(frame, ("mlflow.", "trackdsl.mlflow_bridge.")):
        frame = frame.f_back
    if frame is not None and not is_of(frame, OURS):
        _wait(lambda: [tracking_uri, *_of_program((), {})])


def is_of(frame: FrameType, packages: tuple[str, ...]) -> bool:
    """Whether a frame runs code of these packages."""
    return f"{frame.f_globals.get('__name__')}.".startswith(packages)


def _of_client(args: tuple[Any, ...], _kwargs: dict[str, Any]) -> list[Any]:
    return [args[0].tracking_uri, getattr(args[0], "_registry_uri", None)]


def _of_program(_args: tuple[Any, ...], _kwargs: dict[str, Any]) -> list[Any]:
    return [mlflow.get_tracking_uri(), mlflow.get_registry_uri()]


def _of_clients_run(args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Any]:
    return _of_client(args, kwargs) if _is_recorded(args[1] if len(args) > 1 else kwargs.get("run_id")) else []


def _of_active_run(args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Any]:
    run_id = kwargs.get("run_id")
    if run_id is None:
        active = mlflow.active_run()
        run_id = None if active is None else active.info.run_id
    return _of_program(args, kwargs) if _is_recorded(run_id) else []


def _of_resumed_run(args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Any]:
    run_id = args[0] if args else kwargs.get("run_id") or os.environ.get("MLFLOW_RUN_ID")
    return _of_program(args, kwargs) if _is_recorded(run_id) else []


def _is_recorded(run_id: Any) -> bool:
    """Whether this program has recorded on a run with this id."""
    from trackdsl.store_format.known_runs import names_run

    if not isinstance(run_id, str):
        return False
    writers = [target.writer for target in targets() if target.writer is not None]
    return is_named(run_id) or any(names_run(writer.directory, run_id) for writer in writers)


def _given(_args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Any]:
    return [kwargs.get("tracking_uri") or mlflow.get_tracking_uri()]


def _wait(asked: Callable[[], list[Any]]) -> None:
    """Wait for the delivery of what the program has recorded for the stores that a call uses."""
    used = [target for target in targets() if target.writer is not None]
    if not used:
        return
    try:
        uris = [uri for uri in dict.fromkeys(asked()) if isinstance(uri, str)]
        for uri in uris:
            writers = [target.writer for target in used if same_store(uri, target.uri, target.cwd)]
            _wait_at(uri, [writer for writer in writers if writer is not None])
    except TrackdslError:
        raise
    except Exception as error:
        reraise_from_signal(error)
        report("own-writes", f"trackdsl cannot wait for delivery before plain MLflow reads: {format_error(error)}")


def _wait_at(uri: str, writers: list[Any]) -> None:
    if not writers:
        return
    from trackdsl.delivery import wait_for_delivery

    def counts(origin: Origin) -> bool:
        return same_store(uri, origin.uri, origin.cwd)

    if not wait_for_delivery(uri, writers, counts) and settings.mode() == "online":
        report(
            "own-writes",
            f"not everything that this program has recorded is at {mask_text(uri)} yet, so plain MLflow may miss some "
            "of it. `trackdsl status` shows what is waiting; nothing is lost, and delivery continues.",
            key=uri,
        )
