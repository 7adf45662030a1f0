"""A model's snapshot → an MLflow logged model of the run, assembled without ever loading the model.

All steps can be repeated: a model that exists already is found by its tag, and completed. The steps follow
`mlflow.models.Model.log`, except the inference of requirements and the check of the example, which load the model.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from trackdsl._core.events import Model, model_key
from trackdsl.delivery.mlflow_client._model_signature import add_example
from trackdsl.errors import format_error, logger, reraise_from_signal
from trackdsl.journal._files import read_regular
from trackdsl.store_format.limits import fit_key, fit_text
from trackdsl.store_format.logged_models import age_of, create_version, list_version, logged_name
from trackdsl.store_format.tags import MODEL_HANDLER, MODEL_KEY, MODEL_SHA256

_SPEC = {"answer", "build", "example", "flavor", "options", "params", "pyfunc", "python", "requirements", "signature"}
_MAX_TAG = 5000


def log_model(client: Any, uri: str, run_id: str, experiment_id: str, event: Model, folder: Path) -> str:
    """Log a model; if it is logged already, add what is missing.

    Args:
        client: an `MlflowClient` for the store.
        uri: its tracking URI.
        run_id: MLflow's id of the run that made the model.
        experiment_id: the experiment of that run.
        event: describes the model.
        folder: its snapshot, which is not changed.

    Returns:
        MLflow's id of the model.
    """
    key = model_key(event)
    params = client.get_run(run_id).data.params
    model = _find(client, experiment_id, key)
    if model is None:
        model = _create(client, run_id, experiment_id, event, key, params, _described(folder))
    if str(getattr(model.status, "value", model.status)) != "READY":
        _log_output(client, run_id, model.model_id, event.step)
        with _assembled(model, run_id, event, folder) as (assembled, omitted):
            client.log_model_artifacts(model.model_id, str(assembled))
        _tag_omitted(client, run_id, event.name, omitted)
        # Many parameters are sent to a server in several requests, of which some may be missing.
        missing = {name: value for name, value in params.items() if name not in (model.params or {})}
        if missing:
            client.log_model_params(model.model_id, missing)
        client.finalize_logged_model(model.model_id, "READY")
    if event.registered_name is not None:
        _try_to_register(client, uri, run_id, model, event, key)
    return str(model.model_id)


def _find(client: Any, experiment_id: str, key: str) -> Any:
    models = list(client.search_logged_models([experiment_id], f"tags.`{MODEL_KEY}` = '{key}'"))
    models.sort(key=age_of)
    for late in models[1:]:
        # A server may carry out a request that was given up: one model is kept.
        client.delete_logged_model(late.model_id)
    return models[0] if models else None


def _described(folder: Path) -> dict[str, Any]:
    """The user's description of a model; empty if it cannot be read."""
    try:
        described = json.loads(read_regular(folder / "spec.json")).get("model")
    except (OSError, ValueError, AttributeError, RecursionError):  # Reported when the model is assembled.
        return {}
    return described if isinstance(described, dict) else {}


def _create(
    client: Any,
    run_id: str,
    experiment_id: str,
    event: Model,
    key: str,
    params: dict[str, str],
    given: dict[str, Any],
) -> Any:
    name = logged_name(event.name)
    # The tags identify this model: a run may record several of one name.
    tags = {MODEL_KEY: key, **({MODEL_HANDLER: event.handler, MODEL_SHA256: event.sha256} if event.handler else {})}
    if name != event.name:
        tags["trackdsl.model.name"] = fit_text(event.name, _MAX_TAG)
    tags = {str(tag): str(text) for tag, text in (given.get("tags") or {}).items()} | tags
    params = {str(param): str(text) for param, text in (given.get("params") or {}).items()} | params
    return client.create_logged_model(experiment_id, name, run_id, tags, params, given.get("model_type"))


def _log_output(client: Any, run_id: str, model_id: str, step: int) -> None:
    from mlflow.entities import LoggedModelOutput

    # The store adds a row each time, so look first.
    outputs = getattr(client.get_run(run_id).outputs, "model_outputs", None) or []
    if all(output.model_id != model_id for output in outputs):
        client.log_outputs(run_id, [LoggedModelOutput(model_id, step)])


@contextlib.contextmanager
def _assembled(model: Any, run_id: str, event: Model, folder: Path) -> Iterator[tuple[Path, dict[str, str]]]:
    """The folder of an MLflow model, made from a snapshot, and what is left out of it, with the reasons."""
    from mlflow import pyfunc
    from mlflow.models import Model as MlflowModel

    spec = _spec_of(folder)
    # Next to the snapshot, so that files can be linked, and the remains of a crash are removed with it.
    with tempfile.TemporaryDirectory(prefix=".mlflow-", dir=folder.parent) as temporary:
        path = Path(temporary) / "model"
        shutil.copytree(folder / "model", path, copy_function=_link)
        described = MlflowModel(
            artifact_path=model.artifact_location,
            run_id=run_id,
            utc_time_created=datetime.fromtimestamp(event.time / 1e9, UTC).replace(tzinfo=None),
            model_uuid=model.model_id,
            metadata=_described(folder).get("metadata"),
            model_id=model.model_id,
        )
        omitted = add_example(described, spec, folder, path)
        if spec["pyfunc"] is not None:
            pyfunc.add_to_model(described, **spec["pyfunc"], conda_env="conda.yaml", python_env="python_env.yaml")
            described.flavors[pyfunc.FLAVOR_NAME]["python_version"] = spec["python"]
        if spec["flavor"] != pyfunc.FLAVOR_NAME:
            described.add_flavor(spec["flavor"], **spec["options"])
        described.model_size_bytes = sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
        _write_environment(spec, path)
        described.save(str(path / "MLmodel"))
        yield path, omitted


def _spec_of(folder: Path) -> dict[str, Any]:
    """The description of the model for MLflow.

    Raises:
        ValueError: the snapshot is not a model.
    """
    try:
        spec = json.loads(read_regular(folder / "spec.json"))
    except (FileNotFoundError, RecursionError) as error:
        reraise_from_signal(error)
        raise ValueError(f"its snapshot has no readable description: {format_error(error)}") from None
    missing = _SPEC - set(spec) if isinstance(spec, dict) else _SPEC
    if missing or not (folder / "model").is_dir():
        raise ValueError(f"its snapshot is not a model: {', '.join(sorted(missing)) or 'its files'} missing")
    return dict(spec)


def _link(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:  # The file system has no hard links.
        shutil.copyfile(source, target)


def _tag_omitted(client: Any, run_id: str, name: str, omitted: dict[str, str]) -> None:
    for part, reason in omitted.items():
        logger.warning("trackdsl: model %r is logged without its %s: %s", name, part, reason)
        client.set_tag(run_id, fit_key(f"trackdsl.omitted.{name}.{part}"), fit_text(reason, 500))


def _write_environment(spec: dict[str, Any], path: Path) -> None:
    """Write the three files from which MLflow makes environments, see its documentation of the model format."""
    import yaml

    requirements, build = spec["requirements"], spec["build"]
    conda = {
        "name": "mlflow-env",
        "channels": ["conda-forge"],
        # Not the exact version of pip, which conda-forge may not have yet.
        "dependencies": [f"python={spec['python']}", build[0].replace("==", "<="), {"pip": requirements}],
    }
    python = {"python": spec["python"], "build_dependencies": build, "dependencies": ["-r requirements.txt"]}
    (path / "requirements.txt").write_text("\n".join(requirements), encoding="utf-8")
    for name, content in (("conda.yaml", conda), ("python_env.yaml", python)):
        (path / name).write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")


def _try_to_register(client: Any, uri: str, run_id: str, model: Any, event: Model, key: str) -> None:
    from mlflow.exceptions import MlflowException

    assert event.registered_name is not None
    try:
        _register(client, uri, run_id, model, event.registered_name, key)
    except MlflowException as error:
        if error.error_code != "INVALID_PARAMETER_VALUE":
            raise
        # The model itself is logged.
        tag = fit_key(f"trackdsl.omitted.{event.name}.registered")
        client.set_tag(run_id, tag, fit_text(f"MLflow refused it: {error}", 500))


def _register(client: Any, uri: str, run_id: str, model: Any, name: str, key: str) -> None:
    """Make the model a version of a registered model, once."""
    versions = client.search_model_versions(f"run_id='{run_id}'", max_results=1000)
    known = next((version for version in versions if version.name == name and version.tags.get(MODEL_KEY) == key), None)
    if known is None:
        known = create_version(client, uri, run_id, model, name, {MODEL_KEY: key})
    list_version(client, model, name, int(known.version))
