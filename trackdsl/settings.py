"""Settings, and where each one comes from.

A call, a decorator or the scope around it may say where a run goes. Otherwise the first of these that sets a setting
counts: `configure(...)`, the environment (a setting's variables in their order), the table `[tool.trackdsl]` of the
nearest `pyproject.toml`, the default. `trackdsl doctor` prints the values in force, and where each comes from.
`trackdsl/_config/spec.py` has one row for each setting.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from trackdsl._config import pyproject
from trackdsl._config.spec import DEFAULT_TRACKING_URI, SETTINGS
from trackdsl._core.suggest import suggestion_for
from trackdsl._core.uris import absolute
from trackdsl.errors import SettingsError

if TYPE_CHECKING:
    from trackdsl._config.model import Settings as Settings

__all__ = ["DEFAULT_TRACKING_URI", "Settings"]

NAMES = tuple(SETTINGS)
#: Variables by which trackdsl passes something on to the processes that it starts.
_OUR_OWN = ("TRACKDSL_CONTEXT", "TRACKDSL_RANK_OF", "TRACKDSL_UPLOAD_TIMEOUT")


class Found(NamedTuple):
    """A setting that is in force.

    Attributes:
        value: its value.
        source: what says so: `configure()`, the name of a variable, the path of a `pyproject.toml`, or `default`.
    """

    value: Any
    source: str


#: What `configure` set so far. It is replaced, never changed.
_configured: Mapping[str, Any] = {}


def configured() -> Mapping[str, Any]:
    """What `configure` set so far, by setting. What is not set is not in there."""
    return _configured


def restore(settings: Mapping[str, Any]) -> None:
    """Put back settings taken from `configured`."""
    global _configured
    _configured = settings


def update(**changes: Any) -> None:
    """Change settings after checking every one of them.

    Args:
        **changes: values by setting; None forgets what was set.

    Raises:
        SettingsError: an unknown setting or value; nothing is changed then.
    """
    for name, value in list(changes.items()):
        check_name(name, value, "configure()")
        if value is not None:
            changes[name] = checked(name, value, name)
    restore({name: value for name, value in {**_configured, **changes}.items() if value is not None})


def check_name(name: str, value: Any, where: str) -> None:
    """Refuse what is no setting.

    Raises:
        SettingsError: it is none.
    """
    if name not in NAMES:
        hint = suggestion_for(name, NAMES)
        message = f"{where} has no setting {name!r}{hint.text} Known: {', '.join(NAMES)}."
        raise SettingsError(message, setting=name, value=value)


def checked(name: str, value: Any, called: str) -> Any:
    """The value of a setting, of the type that it has.

    Args:
        name: the setting.
        value: as it was given, text where it comes from the environment.
        called: what the user calls it, for the message.

    Raises:
        SettingsError: the setting cannot have this value.
    """
    return SETTINGS[name].check(called, value)


def look_up(name: str) -> Found:
    """The value of a setting, and what says so.

    Raises:
        SettingsError: what counts has a value that the setting cannot have.
    """
    value = _configured.get(name)
    if value is not None:
        return Found(value, "configure()")
    setting = SETTINGS[name]
    environ = os.environ
    for variable in setting.variables:
        text = environ.get(variable)
        if text:
            return Found(setting.check(variable, text), variable)
    table = project()
    if name in table.values:
        return Found(_of_project(name, table), table.path)
    return Found(setting.default, "default")


def check_all() -> None:
    """Look every setting up but the tracking URI, which a call or a context may say instead.

    Raises:
        SettingsError: one has a value that it cannot have.
    """
    for name in SETTINGS:
        if name != "tracking_uri":
            look_up(name)


def unknown_variables() -> dict[str, str]:
    """The variables of the environment that look like trackdsl's and are none, each with what to say of it."""
    known = [name for setting in SETTINGS.values() for name in setting.variables if name.startswith("TRACKDSL_")]
    found = {}
    for name in os.environ:
        if name.startswith("TRACKDSL_") and name not in (*known, *_OUR_OWN):
            hint = suggestion_for(name, known)
            found[name] = f"trackdsl knows no variable {name}{hint.text} Known: {', '.join(known)}."
    return found


def project() -> pyproject.ProjectTable:
    """What the project says.

    Raises:
        SettingsError: its file is no TOML, or has a setting that does not exist.
    """
    return pyproject.project_table(check_name)


def _of_project(name: str, table: pyproject.ProjectTable) -> Any:
    value = checked(name, table.values[name], f"{name} in {table.path}")
    folder = os.path.dirname(table.path)
    # Relative paths start at the file that they stand in.
    if name == "tracking_uri":
        return absolute(value, folder)
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
    """Where root runs go when neither a call nor an enclosing scope says it."""
    return str(look_up("tracking_uri").value)


def experiment_name() -> str:
    """The MLflow experiment of root runs that name none."""
    return str(look_up("experiment_name").value)


def experiment_id() -> str | None:
    """MLflow's id of the experiment of root runs that name none, where that counts before any name.

    `mlflow.set_experiment` leaves it in the environment. MLflow's own order is the same: what was set in the program,
    then the environment, where a name and an id that do not agree are an error.
    """
    id_ = os.environ.get("MLFLOW_EXPERIMENT_ID")
    if not id_ or look_up("experiment_name").source in ("configure()", *SETTINGS["experiment_name"].variables[:2]):
        return None
    # An id says something at the store alone that MLflow itself uses.
    return id_ if tracking_uri() == (os.environ.get("MLFLOW_TRACKING_URI") or DEFAULT_TRACKING_URI) else None


def secret_names() -> tuple[str, ...]:
    """Names whose values are masked, beside the well-known ones."""
    return tuple(look_up("secret_names").value)


def public_names() -> tuple[str, ...]:
    """Names whose values are not masked, whatever they look like."""
    return tuple(look_up("public_names").value)


def system_metrics() -> float:
    """How often root runs are sampled, in seconds; 0 for never."""
    return float(look_up("system_metrics").value)


def spool() -> Path | None:
    """The spool folder that the user named, or None for the default place."""
    named = look_up("spool").value
    return Path(named).expanduser().absolute() if named else None


def ranks() -> str:
    """`children`, `main` or `separate`: what the ranks of one launch record."""
    return str(look_up("ranks").value)


def show_url() -> bool | None:
    """Whether a program writes the address of its first root run; None where it is to do so at a terminal alone."""
    found = look_up("show_url").value
    return None if found is None else bool(found)


def told(name: str) -> Any:
    """What `configure` or the project says of a setting: what another machine cannot know by itself. None: nothing."""
    found = look_up(name)
    return found.value if found.source == "configure()" or found.source.endswith(".toml") else None


def __getattr__(name: str) -> Any:
    if name == "Settings":  # It brings pydantic, which takes longer to import than everything else here.
        from trackdsl._config.model import Settings

        return Settings
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
