"""Logged and registered models at MLflow, as delivery makes them and programs find them.

Every function takes an `MlflowClient`, so that MLflow is imported by the caller, or not at all.
"""

from __future__ import annotations

import json
import re
from typing import Any

from trackdsl.store_format.limits import fit_text
from trackdsl.store_format.tags import MODEL_KEY

_MAX_NAME = 250
#: What MLflow refuses in the name of a logged model, see `_validate_logged_model_name` in mlflow/utils/validation.py.
_REFUSED = re.compile(r"[/:.%\"'\x00-\x1f]")
#: Lists the versions of a logged model for MLflow's UI, see mlflow/utils/mlflow_tags.py.
_VERSIONS = "mlflow.modelVersions"


def find_model(client: Any, experiment_ids: list[str], key: str) -> str | None:
    """MLflow's id of the model that was recorded with a key; None if it is in none of these experiments."""
    found = list(client.search_logged_models(experiment_ids, f"tags.`{MODEL_KEY}` = '{key}'")) if experiment_ids else []
    return min(found, key=age_of).model_id if found else None


def logged_name(name: str) -> str:
    """The name of a logged model, with `_` for each character that MLflow refuses.

    >>> logged_name("models/rf"), logged_name("classifier")
    ('models_rf', 'classifier')
    """
    return fit_text(_REFUSED.sub("_", name), _MAX_NAME) or "model"


def age_of(model: Any) -> tuple[int, str]:
    """A key that sorts logged models by age, in a fixed order within one millisecond."""
    return model.creation_timestamp, model.model_id


def register_logged(client: Any, uri: str, model: Any, name: str) -> Any:
    """Make a logged model the next version of a registered model.

    Args:
        client: an `MlflowClient` for the store.
        uri: its tracking URI.
        model: the `mlflow.entities.LoggedModel`.
        name: of the registered model.

    Returns:
        the `mlflow.entities.model_registry.ModelVersion`.

    Raises:
        MlflowException: MLflow refuses it.
    """
    version = create_version(client, uri, model.source_run_id, model, name, None)
    list_version(client, model, name, int(version.version))
    return version


def create_version(
    client: Any, uri: str, run_id: str | None, model: Any, name: str, tags: dict[str, str] | None
) -> Any:
    """Make a logged model the next version of a registered model, which is created if necessary."""
    _create_registered_model(client, name)
    return client.create_model_version(
        name, _source(uri, model), run_id, tags, await_creation_for=0, model_id=model.model_id
    )


def list_version(client: Any, model: Any, name: str, version: int) -> None:
    """Add a version to the list on its logged model, as MLflow does."""
    known = json.loads(model.tags.get(_VERSIONS) or "[]")
    entry = {"name": name, "version": version}
    if entry not in known:
        client.set_logged_model_tags(model.model_id, {_VERSIONS: json.dumps([*known, entry])})


def _create_registered_model(client: Any, name: str) -> None:
    from mlflow.exceptions import MlflowException
    from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE

    try:
        client.create_registered_model(name)
    except MlflowException as error:
        if error.error_code not in ("RESOURCE_ALREADY_EXISTS", "ALREADY_EXISTS"):
            raise
        # MLflow keeps prompts under the same names, and would add the model to a prompt as its next version.
        if client.get_prompt(name) is not None:
            raise MlflowException(error.message, INVALID_PARAMETER_VALUE) from error


def _source(uri: str, model: Any) -> str:
    """The URI of a version's files.

    A database store looks up a model's id at MLflow's global tracking URI. In a program that delivers from a thread,
    that URI may name another store: there the version gets the location of the files instead of the model's id.
    """
    import mlflow

    if uri.startswith("http") or mlflow.get_tracking_uri() == uri:
        return f"models:/{model.model_id}"
    return str(model.artifact_location)
