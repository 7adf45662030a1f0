"""`register_model`, `load_model`: models of MLflow, by their URIs.

The handler that wrote a model reads it, and only if its files have the recorded hash.
"""

from __future__ import annotations

import contextlib
import re
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from trackdsl._config import resolve as settings
from trackdsl._core.handle import RunHandle
from trackdsl._core.redaction import mask_text
from trackdsl._runs.fetching import Fetched, find_mlflow_run, note_of, refuse_links
from trackdsl._runs.loading import read_fetched
from trackdsl.errors import (
    ArtifactError,
    OptionError,
    RegistryError,
    RunNotReady,
    UntrustedArtifact,
    format_error,
    reraise_from_signal,
)
from trackdsl.handlers.references import remember_loaded
from trackdsl.journal._target import target_for
from trackdsl.markers import check_registered_name
from trackdsl.store_format.files_tag import FileNote
from trackdsl.store_format.tags import MODEL_HANDLER, MODEL_NAME, MODEL_SHA256

_URI = re.compile(
    r"runs:/(?P<run>[^/]+)/(?P<logged>.+)"
    r"|models:/(?P<name>[^/@]+)(?:/(?P<version>[^/@]+)|@(?P<alias>[^/@]+))"
    r"|models:/(?P<id>m-[0-9a-f]{32})"
)
_ID = re.compile(r"(?<![^/])m-[0-9a-f]{32}(?![^/])")
_FORMS = "'models:/name/3', 'models:/name/latest', 'models:/name@alias', 'models:/<model id>' or 'runs:/<run id>/name'"
_POLL = 0.1


def load_model(
    model_uri: str, *, trusted: bool = False, tracking_uri: str | None = None, timeout: float | None = None
) -> Any:
    """Load a model that trackdsl recorded, as the original object.

    A model with a pickle inside can run any code when it is loaded. It loads only with `trusted=True`, and only if its
    SHA-256 is the one that was recorded with it. Models of XGBoost and LightGBM contain no pickle. To get MLflow's own
    interface, or a model that plain MLflow logged, use `mlflow.pyfunc.load_model`.

    Args:
        model_uri: `models:/name/3`, `models:/name/latest`, `models:/name@alias`, `models:/<model id>`, or
            `runs:/<run id>/<name>`.
        trusted: allow code from this model to be executed, because you trust its author.
        tracking_uri: the store of the model; the configured one by default.
        timeout: seconds to wait for the delivery of what this program recorded; by default as long as delivery is at
            work and the store answers.

    Returns:
        the estimator, network, or other object.

    Raises:
        UntrustedArtifact: loading it may run code, and `trusted` is not set; or no SHA-256 of it was recorded.
        ArtifactError: there is no such model, it was changed since, or it cannot be read.
        OptionError: the URI is not the URI of a model.

    Example:
        >>> model = load_model("models:/churn/3", trusted=True)  # doctest: +SKIP
    """
    parts = _parsed(model_uri)
    uri = tracking_uri or target_for(settings.tracking_uri()).uri
    model, client = _with_patience(lambda client: _resolved(client, parts, model_uri), uri, model_uri, timeout)
    name = model.tags.get(MODEL_NAME, model.name)
    note = _note_of_model(client, model, name)
    if not note.handler:
        raise UntrustedArtifact(
            f"{model_uri!r} was not recorded by trackdsl, so no SHA-256 of it is known. Load it with "
            f"mlflow.pyfunc.load_model({model_uri!r}) if you know where it comes from.",
            path=model_uri,
        )
    with fetch_logged(uri, f"models:/{model.model_id}", note) as fetched:
        value = read_fetched(fetched, model_uri, trusted)
    remember_loaded(value, model.model_id)
    return value


@contextlib.contextmanager
def fetch_logged(uri: str, model_uri: str, note: FileNote) -> Iterator[Fetched]:
    """A private copy of a logged model's files, for as long as the block lasts.

    Args:
        uri: the tracking URI.
        model_uri: `models:/<model id>`.
        note: what was recorded about the files.

    Raises:
        ArtifactError: the files cannot be read.
    """
    from mlflow import artifacts
    from mlflow.exceptions import MlflowException

    with tempfile.TemporaryDirectory(prefix="trackdsl-") as folder:
        try:
            path = Path(artifacts.download_artifacts(model_uri, dst_path=folder, tracking_uri=uri))
        except (MlflowException, OSError) as error:
            reraise_from_signal(error)
            raise ArtifactError(
                f"{model_uri!r} cannot be read: {mask_text(format_error(error))}", path=model_uri
            ) from None
        refuse_links(path, model_uri)
        yield Fetched(path, note)


def find_recorded(uri: str, key: str) -> str | None:
    """MLflow's id of the model that was recorded with a key; None if MLflow does not have all of it.

    Raises:
        ArtifactError: the lookup failed.
    """
    import mlflow

    def search(client: Any) -> str | None:
        from trackdsl.store_format.logged_models import find_model

        experiments = [experiment.experiment_id for experiment in client.search_experiments(view_type=3)]
        found = find_model(client, experiments, key)
        return found if found is not None and _is_ready(client.get_logged_model(found)) else None

    found: str | None = _searched(search, mlflow.MlflowClient(tracking_uri=uri, registry_uri=uri), key)[0]
    return found


def register_model(
    run: RunHandle | str,
    name: str,
    *,
    model: str | None = None,
    tracking_uri: str | None = None,
    timeout: float | None = None,
) -> Any:
    """Make a recorded model the next version of a registered model.

    Args:
        run: the `Run` that recorded the model, or a URI: `runs:/<run id>/<name>` or `models:/<model id>`.
        name: of the registered model, which is created if it does not exist.
        model: the name of the model, if the run has several.
        tracking_uri: the store of the model; that of the `Run`, else the configured one.
        timeout: seconds to wait for the delivery of the model; by default as long as delivery is at work and the store
            answers.

    Returns:
        the `mlflow.entities.model_registry.ModelVersion`.

    Raises:
        OptionError: MLflow cannot accept the name, or the URI is not the URI of a model.
        RegistryError: MLflow refuses, for example because the name belongs to a prompt.
        ArtifactError: the run has no such model, or has several and `model` is not set.
        RunNotReady: MLflow does not have the model in time.

    Example:
        >>> with stage("train") as run:  # doctest: +SKIP
        ...     run.log_model(model, "classifier")
        >>> register_model(run, "churn").version  # doctest: +SKIP
        1
    """
    check_registered_name(name, "name")
    if isinstance(run, RunHandle):
        uri, asked = tracking_uri or run.target.uri, f"runs:/{run.run_id}/{model or '*'}"
    else:
        uri, asked = tracking_uri or target_for(settings.tracking_uri()).uri, run
    parts = _parsed(asked)
    if parts["name"]:
        raise OptionError(
            f"{asked!r} is registered already: pass a run, or 'runs:/<run id>/name', or 'models:/<model id>'.",
            option="run",
        )
    found, client = _with_patience(lambda client: _resolved(client, parts, asked), uri, asked, timeout)
    from mlflow.exceptions import MlflowException

    from trackdsl.store_format.logged_models import register_logged

    try:
        return register_logged(client, uri, found, name)
    except MlflowException as error:
        raise RegistryError(f"MLflow does not register {name!r}: {mask_text(str(error))}", name=name) from error


def _parsed(uri: Any) -> dict[str, str | None]:
    found = _URI.fullmatch(uri) if isinstance(uri, str) else None
    if found is None:
        raise OptionError(f"{uri!r} is not a URI of a model. There are {_FORMS}.", option="model_uri")
    return found.groupdict()


def _with_patience(search: Callable[[Any], Any], uri: str, asked: str, timeout: float | None) -> tuple[Any, Any]:
    """Search for a model; if MLflow does not have it, wait for this program's delivery and search again."""
    import mlflow

    from trackdsl.delivery import flush
    from trackdsl.store_format.journals import absence_message

    client = mlflow.MlflowClient(tracking_uri=uri, registry_uri=uri)
    found, reason = _searched(search, client, asked)
    if found is None:
        delivered = flush(timeout)
        found, reason = _searched(search, client, asked)
        if found is None and not delivered:
            within = "" if timeout is None else f" in {timeout:g} s"
            raise RunNotReady(
                f"{asked!r} was not delivered{within} ({reason}). `trackdsl status` shows what is waiting.",
                run=asked,
                reason=reason,
            )
    if found is None:
        raise ArtifactError(
            absence_message(f"the model {asked!r}", uri, f"there is no model {asked!r}: {reason}"), path=asked
        )
    return found, client


def _searched(search: Callable[[Any], Any], client: Any, asked: str) -> tuple[Any, str]:
    from mlflow.exceptions import MlflowException

    try:
        return search(client), "the run has none of this name"
    except MlflowException as error:
        reason = mask_text(str(error))
        if error.error_code not in ("RESOURCE_DOES_NOT_EXIST", "NOT_FOUND", "INVALID_PARAMETER_VALUE"):
            raise ArtifactError(f"{asked!r} cannot be looked up: {reason}", path=asked) from error
        return None, reason


def _resolved(client: Any, parts: dict[str, str | None], asked: str) -> Any:
    """The logged model of a URI; None if MLflow does not have all of it."""
    name, run = parts["name"], parts["run"]
    if name is not None and parts["id"] is None:
        version = _version(client, name, parts["version"], parts["alias"], asked)
        # Stores do not keep the id in a field of its own, but the path of the files contains it.
        ids = [version.model_id] if version.model_id else _ID.findall(version.source or "")
        if not ids:
            raise UntrustedArtifact(
                f"{asked!r} is a version of a model that was not recorded by trackdsl, so no SHA-256 of it is known. "
                f"Load it with mlflow.pyfunc.load_model({asked!r}) if you know where it comes from.",
                path=asked,
            )
        return client.get_logged_model(ids[-1])
    if run is None:
        model = client.get_logged_model(parts["id"])
        return model if _is_ready(model) else None
    found = find_mlflow_run(client, run, asked)
    models = _models_of(client, found.info, parts["logged"])
    names = {model.name for model in models}
    if len(names) > 1:
        raise ArtifactError(
            f"the run has several models, {', '.join(sorted(names))}: name one, register_model(run, name, model=...)",
            path=asked,
        )
    return models[0] if models else None


def _models_of(client: Any, run: Any, name: str | None) -> list[Any]:
    """The models of a run, the newest first."""
    from trackdsl.store_format.logged_models import logged_name

    # A model's name in MLflow contains no quotes, so it cannot end the string.
    named = "" if name in (None, "*") else f"name = '{logged_name(str(name))}' AND "
    found = client.search_logged_models([run.experiment_id], f"{named}source_run_id = '{run.run_id}'")
    return sorted(filter(_is_ready, found), key=lambda model: model.creation_timestamp, reverse=True)


def _is_ready(model: Any) -> bool:
    return str(getattr(model.status, "value", model.status)) == "READY"


def _version(client: Any, name: str, version: str | None, alias: str | None, asked: str) -> Any:
    if alias is not None:
        return client.get_model_version_by_alias(name, alias)
    if version == "latest":
        found = client.search_model_versions(f"name='{_quoted(name)}'", 1, ["version_number DESC"])
        if not found:
            raise ArtifactError(f"there is no model {asked!r}", path=asked)
        return found[0]
    if not str(version).isdecimal():
        raise OptionError(f"{asked!r}: {version!r} is not a version. There are {_FORMS}.", option="model_uri")
    return client.get_model_version(name, version)


def _quoted(name: str) -> str:
    """A name for the filter of a search. MLflow's filters cannot contain a quote inside a string."""
    if "'" in name:
        raise OptionError(
            f"MLflow cannot search for a name with a quote in it, {name!r}: pass the version.", option="name"
        )
    return name


def _note_of_model(client: Any, model: Any, name: str) -> FileNote:
    if model.tags.get(MODEL_HANDLER):
        return FileNote(model.tags[MODEL_HANDLER], model.tags.get(MODEL_SHA256, ""))
    # Delivered by an earlier version, which wrote the tags of the run only.
    return note_of(client.get_run(model.source_run_id).data.tags, name) if model.source_run_id else FileNote()
