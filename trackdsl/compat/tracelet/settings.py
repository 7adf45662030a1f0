"""Those of tracelet's settings that name the store, the experiment and the project."""

from __future__ import annotations

from typing import Any

from pydantic_settings import SettingsConfigDict

from trackdsl._config.model import CheckedSettings


class TraceletSettings(CheckedSettings):
    """tracelet's settings, also from its variables: `TRACELET_PROJECT`, `TRACELET_MLFLOW_TRACKING_URI`, and so on.

    Attributes:
        project: the value of the tag `project` of runs.
        backend: `mlflow`, or a list that contains only it.
        mlflow_tracking_uri: the tracking URI that runs are delivered to.
        mlflow_experiment_name: the MLflow experiment of the runs.

    Raises:
        SettingsError: a setting or value does not exist.

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
        """The arguments for `start_logging`."""
        given = self.given()
        return {
            "project": self.project,
            "backend": self.backend,
            # Without the environment, which trackdsl reads itself, in its own order of precedence.
            "tracking_uri": given.get("mlflow_tracking_uri"),
            "experiment_name": given.get("mlflow_experiment_name"),
        }
