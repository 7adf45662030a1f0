"""Which value each setting has now, and where it comes from.

A call, a decorator or the scope around it may say where a run goes. Otherwise the first of these that sets a setting
counts: `configure(...)`, the environment (a setting's variables in their order), the table `[tool.trackdsl]` of the
nearest `pyproject.toml`, the default. `trackdsl doctor` prints the values in force, and where each comes from.
`trackdsl/_config/spec.py` has one row for each setting.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from trackdsl._config import pyproject
from trackdsl._config.spec import DEFAULT_TRACKING_URI, SETTINGS
from trackdsl._core.suggest import suggestion_for
from trackdsl._core.uris import absolute_uri
from trackdsl.errors import SettingsError

NAMES = tuple(SETTINGS)
#: Variables of trackdsl that are not settings. It sets most of them itself, for the processes that it starts.
_OUR_OWN = (
    "TRACKDSL_CONTEXT",
    "TRACKDSL_NOTEBOOK",
    "TRACKDSL_PAPERMILL",
    "TRACKDSL_RANK_OF",
    "TRACKDSL_UPLOAD_TIMEOUT",
)


class Resolved(NamedTuple):
    """The value of a setting, and where it comes from.

    Attributes:
        value: the value in force.
        source: `configure()`, the name of a variable, the path of a `pyproject.toml`, or `default`.
    """

    value: Any
    source: str


#: What `configure` has set. A change replaces the mapping, so code that holds the old one does not see the change.
_configured: Mapping[str, Any] = {}


def configured() -> Mapping[str, Any]:
    """The settings that `configure` has set, with their values."""
    return _configured


def restore(settings: Mapping[str, Any]) -> None:
    """Put back what `configured` returned before."""
    global _configured
    _configured = settings


def update(**changes: Any) -> None:
    """Change settings, once all of them have been checked.

    Args:
        **changes: the new values, by setting; None removes what was set.

    Raises:
        SettingsError: a setting does not exist, or cannot have this value. Nothing is changed then.
    """
    for name, value in list(changes.items()):
        check_name(name, value, "configure()")
        if value is not None:
            changes[name] = checked(name, value, name)
    restore({name: value for name, value in {**_configured, **changes}.items() if value is not None})


def check_name(name: str, value: Any, where: str) -> None:
    """Raise if there is no setting of this name.

    Args:
        name: the name.
        value: the value it was given, for the error.
        where: what has the name, for the message.

    Raises:
        SettingsError: no setting has this name.
    """
    if name not in NAMES:
        hint = suggestion_for(name, NAMES)
        message = f"{where} has no setting {name!r}{hint.text} Known: {', '.join(NAMES)}."
        raise SettingsError(message, setting=name, value=value)


def checked(name: str, value: Any, called: str) -> Any:
    """A value converted to the type of its setting.

    Args:
        name: the setting.
        value: as it was given; a string if it comes from the environment.
        called: the user's name for it, such as `--tracking-uri`, for the message.

    Raises:
        SettingsError: the setting cannot have this value.
    """
    return SETTINGS[name].check(called, value)


def look_up(name: str) -> Resolved:
    """The value of a setting, and where it comes from.

    Raises:
        SettingsError: the setting cannot have the value that a variable or the project gives it.
    """
    value = _configured.get(name)
    if value is not None:
        return Resolved(value, "configure()")
    setting = SETTINGS[name]
    environ = os.environ
    for variable in setting.variables:
        text = environ.get(variable)
        if text:
            return Resolved(setting.check(variable, text), variable)
    table = project()
    if name in table.values:
        return Resolved(_of_project(name, table), table.path)
    return Resolved(setting.default, "default")


def found_in(name: str) -> str:
    """Where a setting has its value, for messages: a variable, or `stages in /project/pyproject.toml`."""
    source = look_up(name).source
    return source if source in SETTINGS[name].variables else f"{name} in {source}"


def check_all() -> None:
    """Check the values of all settings except the tracking URI, which a call or a context may replace.

    Raises:
        SettingsError: a setting cannot have the value that a variable or the project gives it.
    """
    for name in SETTINGS:
        if name != "tracking_uri":
            look_up(name)


def unknown_variables() -> dict[str, str]:
    """The environment variables that begin with `TRACKDSL_` but are unknown, each with a message for the user."""
    known = [name for setting in SETTINGS.values() for name in setting.variables if name.startswith("TRACKDSL_")]
    found = {}
    for name in os.environ:
        if name.startswith("TRACKDSL_") and name not in (*known, *_OUR_OWN):
            hint = suggestion_for(name, known)
            found[name] = f"unknown environment variable {name}{hint.text} Known: {', '.join(known)}."
    return found


def project() -> pyproject.ProjectTable:
    """The settings in the project's `pyproject.toml`.

    Raises:
        SettingsError: the file is not valid TOML, or has a setting that does not exist.
    """
    return pyproject.project_table(check_name)


def _of_project(name: str, table: pyproject.ProjectTable) -> Any:
    value = checked(name, table.values[name], f"{name} in {table.path}")
    folder = os.path.dirname(table.path)
    # Relative paths start in the folder of their file.
    if name == "tracking_uri":
        return absolute_uri(value, folder)
    return os.path.join(folder, os.path.expanduser(value)) if name == "spool" else value


def mode() -> str:
    """`online`, `offline` or `disabled`."""
    return str(look_up("mode").value)


def delivery() -> str:
    """`process` or `thread`: where the delivery worker runs."""
    return str(look_up("delivery").value)


def strict() -> bool:
    """Whether faults in tracking raise."""
    return bool(look_up("strict").value)


def tracking_uri() -> str:
    """The tracking URI of root runs for which neither the call nor an enclosing scope names another one."""
    return str(look_up("tracking_uri").value)


def experiment_name() -> str:
    """The MLflow experiment of root runs that name none."""
    return str(look_up("experiment_name").value)


def experiment_id() -> str | None:
    """MLflow's id of the experiment of root runs that name none; None where the name of an experiment counts.

    `mlflow.set_experiment` sets it in the environment. MLflow has the same order: first what the program set, then the
    environment. There a name and an id that disagree are an error.
    """
    id_ = os.environ.get("MLFLOW_EXPERIMENT_ID")
    if not id_ or look_up("experiment_name").source in ("configure()", *SETTINGS["experiment_name"].variables[:2]):
        return None
    # An id belongs to one store: the one that MLflow itself uses.
    return id_ if tracking_uri() == (os.environ.get("MLFLOW_TRACKING_URI") or DEFAULT_TRACKING_URI) else None


def secret_names() -> tuple[str, ...]:
    """Names whose values are masked, besides the well-known ones."""
    return tuple(look_up("secret_names").value)


def public_names() -> tuple[str, ...]:
    """Names whose values are not masked, even if they look like secrets."""
    return tuple(look_up("public_names").value)


def system_metrics() -> float:
    """The seconds between two samples of the machine while a root run is open; 0 for no samples."""
    return float(look_up("system_metrics").value)


def spool() -> Path | None:
    """The spool folder that the user named, or None for the default folder."""
    named = look_up("spool").value
    return Path(named).expanduser().absolute() if named else None


def cards() -> bool:
    """Whether notebooks show cards of runs."""
    return bool(look_up("cards").value)


def changes() -> bool:
    """Whether each root run is compared with the last one like it, and source is kept for that."""
    return bool(look_up("changes").value)


def reports() -> bool:
    """Whether each root run with several children gets a report."""
    return bool(look_up("reports").value)


def traces() -> bool:
    """Whether the tree of each root run becomes a trace."""
    return bool(look_up("traces").value)


def ranks() -> str:
    """`children`, `main` or `separate`: what the ranks of one launch record."""
    return str(look_up("ranks").value)


def stages() -> tuple[str, ...]:
    """The functions that `trackdsl run` makes stages."""
    return tuple(look_up("stages").value)


def show_url() -> bool | None:
    """Whether a program prints the address of its first root run; None for only at a terminal."""
    found = look_up("show_url").value
    return None if found is None else bool(found)


def explicit(name: str) -> Any:
    """The value that `configure` or the project gives a setting, which other machines do not know; None for neither."""
    found = look_up(name)
    return found.value if found.source == "configure()" or found.source.endswith(".toml") else None
