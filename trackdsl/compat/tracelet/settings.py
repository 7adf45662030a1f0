"""tracelet's settings, as far as they say where runs go."""

from __future__ import annotations

from typing import Any

from pydantic_settings import SettingsConfigDict

from trackdsl._config.model import CheckedSettings


class TraceletSettings(CheckedSettings):
    """tracelet's settings, also from its variables: `TRACELET_PROJECT`, `TRACELET_MLFLOW_TRACKING_URI`, and so on.

    Attributes:
        project: what runs belong to: their tag `project`.
        backend: `mlflow`, or a list of it alone.
        mlflow_tracking_uri: where runs go.
        mlflow_experiment_name: the MLflow experiment they are in.

    Raises:
        SettingsError: a setting or value that does not exist.

    Example:
        >>> TraceletSettings(project="vision", backend=["mlflow"]).project
        'vision'
    """

    model_config = SettingsConfigDict(env_prefix="TRACELET_")

    project: str | None = None
    backend: str | list[str] = "mlflow"
    mlflow_tracking_uri: str | None = None
    mlflow_experiment_name: str | None = None

    def session(self) -> dict[str, Any]:
        """What `start_logging` is told."""
        given = self.given()
        return {
            "project": self.project,
            "backend": self.backend,
            # Of the environment trackdsl asks itself, in the order that it has for all that says where runs go.
            "tracking_uri": given.get("mlflow_tracking_uri"),
            "experiment_name": given.get("mlflow_experiment_name"),
        }
