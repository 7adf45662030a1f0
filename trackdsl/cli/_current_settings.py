"""The present value of each setting, and its source, for `trackdsl doctor`."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass

from trackdsl._config import resolve as settings
from trackdsl._config.spec import SETTINGS
from trackdsl._core.redaction import mask_prose
from trackdsl.errors import SettingsError
from trackdsl.journal import _spool_choice

#: MLflow's own variables for access to a server.
_CREDENTIALS = (
    "MLFLOW_TRACKING_USERNAME",
    "MLFLOW_TRACKING_PASSWORD",
    "MLFLOW_TRACKING_TOKEN",
    "MLFLOW_TRACKING_INSECURE_TLS",
    "MLFLOW_TRACKING_SERVER_CERT_PATH",
    "MLFLOW_TRACKING_CLIENT_CERT_PATH",
)


@dataclass(frozen=True)
class CurrentSetting:
    """The present value of a setting.

    Attributes:
        name: its name, or that of a variable that MLflow reads.
        value: as text, with secrets masked; None if it is not set.
        source: what has set it.
        hides: the other sources that set it too; `source` takes precedence over them.
        problem: why the value is wrong, or None.
    """

    name: str
    value: str | None
    source: str
    hides: tuple[str, ...] = ()
    problem: str | None = None


def all_settings() -> list[CurrentSetting]:
    """Every setting, with the source of its value."""
    return [_setting(name) for name in settings.NAMES] + [*_experiment_id(), *_credentials()]


def _setting(name: str) -> CurrentSetting:
    try:
        found = settings.look_up(name)
    except SettingsError as error:
        if str(error) == _error_of_project():
            return CurrentSetting(name, None, "unknown: see [tool.trackdsl] below")
        return CurrentSetting(name, None, error.setting, problem=mask_prose(str(error)))
    value = found.value
    if name == "spool" and value is None:
        value = _spool_choice.default_path()
    if name == "show_url" and value is None:
        value = "at a terminal"
    shown = ", ".join(value) if isinstance(value, tuple) else str(value)
    return CurrentSetting(name, mask_prose(shown), found.source, tuple(_hidden(name, found.source)))


def _error_of_project() -> str:
    """Why the project's table cannot be used; empty if it can."""
    try:
        settings.project()
    except SettingsError as error:
        return str(error)
    return ""


def _hidden(name: str, source: str) -> Iterator[str]:
    """The other sources of a setting, which have a lower precedence than the source that counts."""
    variables = SETTINGS[name].variables
    lower = variables[variables.index(source) + 1 :] if source in variables else variables
    yield from (variable for variable in lower if os.environ.get(variable))
    try:
        project = settings.project()
    except SettingsError:  # `_checks.project` reports it.
        return
    if name in project.values and source != project.path:
        yield project.path


def _experiment_id() -> Iterator[CurrentSetting]:
    id_ = os.environ.get("MLFLOW_EXPERIMENT_ID")
    if id_ and not _error_of_project():
        counts = settings.experiment_id() is not None
        value = id_ if counts else f"{id_}, which is ignored: experiment_name or tracking_uri is set elsewhere"
        yield CurrentSetting("experiment id", value, "MLFLOW_EXPERIMENT_ID")


def _credentials() -> Iterator[CurrentSetting]:
    for name in _CREDENTIALS:
        if os.environ.get(name):
            secret = name.endswith(("PASSWORD", "TOKEN", "USERNAME"))
            yield CurrentSetting(name, "***" if secret else os.environ[name], "environment")
