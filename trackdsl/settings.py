"""Settings, and where each one comes from.

A call, a decorator or the scope around it may say where a run goes. Failing that, for every setting, the first of these
that says something counts: `configure(...)`, the environment (a setting's variables in the order below), the table
`[tool.trackdsl]` of the nearest `pyproject.toml`, the default. `trackdsl doctor` prints what is in force, and why.

| setting | environment | default |
|---|---|---|
| `tracking_uri` | `TRACKDSL_TRACKING_URI`, `TRACELET_MLFLOW_TRACKING_URI`, `MLFLOW_TRACKING_URI` | `sqlite:///mlflow.db` in the working folder |
| `experiment_name` | `TRACKDSL_EXPERIMENT_NAME`, `TRACELET_MLFLOW_EXPERIMENT_NAME`, `MLFLOW_EXPERIMENT_ID`, `MLFLOW_EXPERIMENT_NAME` | `Default` |
| `mode` | `TRACKDSL_MODE` | `online` |
| `spool` | `TRACKDSL_SPOOL` | the user's state directory |
| `strict` | `TRACKDSL_STRICT` | off |
| `delivery` | `TRACKDSL_DELIVERY` | `process` |
| `secret_names` | `TRACKDSL_SECRET_NAMES`, separated by commas | none beside the well-known ones |
| `public_names` | `TRACKDSL_PUBLIC_NAMES`, separated by commas | none |
| `system_metrics` | `TRACKDSL_SYSTEM_METRICS`, `MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING` | off |
| `ranks` | `TRACKDSL_RANKS` | `children` |
| `show_url` | `TRACKDSL_SHOW_URL` | on at a terminal: the address of a program's first root run |
"""  # noqa: E501 - a table's rows cannot be broken

from __future__ import annotations

import math
import os
from collections.abc import Iterable
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from trackdsl import _pyproject
from trackdsl._suggest import suggestion_for
from trackdsl._uris import absolute, mistake, shown
from trackdsl.errors import SettingsError

if TYPE_CHECKING:
    from trackdsl._settings_model import Settings as Settings

DEFAULT_TRACKING_URI = "sqlite:///mlflow.db"
MODES = ("online", "offline", "disabled")
DELIVERIES = ("process", "thread")
RANKS = ("children", "main", "separate")
_TRUE = ("1", "true", "yes", "on")
_FALSE = ("", "0", "false", "no", "off")


@dataclass(frozen=True)
class Configured:
    """What `configure` was told. None means: not set, ask the environment.

    Attributes:
        tracking_uri: where runs go, as MLflow writes it.
        experiment_name: the MLflow experiment of root runs that name none.
        mode: `online` records and delivers, `offline` records for a later `trackdsl sync`, `disabled` does nothing.
        spool: the folder of the journals.
        strict: raise faults in tracking instead of logging them.
        delivery: `process` delivers from a process of its own, `thread` from a thread of this one.
        secret_names: names whose values are masked, beside the well-known ones (`password`, `api_key`, …).
        public_names: names whose values are not masked, whatever they look like.
        system_metrics: how often to sample root runs, in seconds; 0 for never.
        ranks: what processes that a launcher starts together record, such as those of torchrun: `children` of one root
            run, `main` the first of them alone, `separate` each for itself.
        show_url: write the address of the program's first root run to its errors, once the run is at MLflow; by default
            where these go to a terminal.
    """

    tracking_uri: str | None = None
    experiment_name: str | None = None
    mode: str | None = None
    spool: str | Path | None = None
    strict: bool | None = None
    delivery: str | None = None
    secret_names: tuple[str, ...] | None = None
    public_names: tuple[str, ...] | None = None
    system_metrics: float | None = None
    ranks: str | None = None
    show_url: bool | None = None


NAMES = tuple(field.name for field in fields(Configured))
#: The variables of a setting, first the one that counts first. MLflow's id of an experiment has no place here: it says
#: something at one store alone, see `experiment_id`.
VARIABLES = {
    **{name: (f"TRACKDSL_{name.upper()}",) for name in NAMES},
    "tracking_uri": ("TRACKDSL_TRACKING_URI", "TRACELET_MLFLOW_TRACKING_URI", "MLFLOW_TRACKING_URI"),
    "experiment_name": ("TRACKDSL_EXPERIMENT_NAME", "TRACELET_MLFLOW_EXPERIMENT_NAME", "MLFLOW_EXPERIMENT_NAME"),
    "system_metrics": ("TRACKDSL_SYSTEM_METRICS", "MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING"),
}
#: Variables by which trackdsl tells something to the processes that it starts.
_OUR_OWN = ("TRACKDSL_CONTEXT", "TRACKDSL_RANK_OF", "TRACKDSL_UPLOAD_TIMEOUT")
_DEFAULTS = {
    "tracking_uri": DEFAULT_TRACKING_URI,
    "experiment_name": "Default",
    "mode": "online",
    "spool": None,
    "strict": False,
    "delivery": "process",
    "secret_names": (),
    "public_names": (),
    "system_metrics": 0.0,
    "ranks": "children",
    "show_url": None,
}
#: How often the machine is sampled where nobody says it, as by MLflow, and at most, in seconds.
_INTERVAL, _SHORTEST_INTERVAL = 10.0, 0.1
_CHOICES = {"mode": MODES, "delivery": DELIVERIES, "ranks": RANKS}


class Found(NamedTuple):
    """A setting that is in force.

    Attributes:
        value: its value.
        source: what says so: `configure()`, the name of a variable, the path of a `pyproject.toml`, or `default`.
    """

    value: Any
    source: str


_configured = Configured()


def configured() -> Configured:
    """What `configure` set so far."""
    return _configured


def restore(settings: Configured) -> None:
    """Put back settings taken from `configured`."""
    global _configured
    _configured = settings


def update(**changes: Any) -> None:
    """Change settings after checking every one of them.

    Raises:
        SettingsError: an unknown setting or value; nothing is changed then.
    """
    for name, value in list(changes.items()):
        check_name(name, value, "configure()")
        if value is not None:
            changes[name] = checked(name, value, name)
    restore(replace(_configured, **changes))


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
    if name in _CHOICES:
        return _one_of(called, value, _CHOICES[name])
    if name in ("strict", "show_url"):
        return value if isinstance(value, bool) else _is_true(called, value)
    if name in ("secret_names", "public_names"):
        return _names(called, value)
    if name == "system_metrics":
        return _interval(called, value)
    if name == "spool" and isinstance(value, Path):
        return value
    if not isinstance(value, str):
        raise SettingsError(f"{called} takes text, not {value!r}.", setting=called, value=value)
    if name == "tracking_uri" and (wrong := mistake(value)) is not None:
        raise SettingsError(f"{called} is {shown(value)!r}: {wrong}", setting=called, value=shown(value))
    return value


def look_up(name: str) -> Found:
    """The value of a setting, and what says so.

    Raises:
        SettingsError: what counts has a value that the setting cannot have.
    """
    value = getattr(_configured, name)
    if value is not None:
        return Found(value, "configure()")
    environ = os.environ
    for variable in VARIABLES[name]:
        text = environ.get(variable)
        if text:
            return Found(checked(name, text, variable), variable)
    table = project()
    if name in table.values:
        return Found(_of_project(name, table), table.path)
    return Found(_DEFAULTS[name], "default")


def unknown_variables() -> dict[str, str]:
    """The variables of the environment that look like trackdsl's and are none, each with what to say of it."""
    known = [name for names in VARIABLES.values() for name in names if name.startswith("TRACKDSL_")]
    found = {}
    for name in os.environ:
        if name.startswith("TRACKDSL_") and name not in (*known, *_OUR_OWN):
            hint = suggestion_for(name, known)
            found[name] = f"trackdsl knows no variable {name}{hint.text} Known: {', '.join(known)}."
    return found


def project() -> _pyproject.ProjectTable:
    """What the project says.

    Raises:
        SettingsError: its file is no TOML, or has a setting that does not exist.
    """
    return _pyproject.project_table(check_name)


def _of_project(name: str, table: _pyproject.ProjectTable) -> Any:
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
    if not id_ or look_up("experiment_name").source in ("configure()", *VARIABLES["experiment_name"][:2]):
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
        from trackdsl._settings_model import Settings

        return Settings
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def _names(setting: str, value: Any) -> tuple[str, ...]:
    if isinstance(value, str):
        names: tuple[Any, ...] = tuple(name.strip() for name in value.split(",") if name.strip())
    else:
        names = tuple(value) if isinstance(value, Iterable) else (value,)
    if not all(isinstance(name, str) for name in names):
        raise SettingsError(f"{setting} takes names, not {value!r}.", setting=setting, value=value)
    return names


def _interval(setting: str, value: Any) -> float:
    """Seconds, from a truth value or a number, or the text of either."""
    text = str(value).strip().lower()
    if text in (*_TRUE, *_FALSE):
        return _usual_interval() if text in _TRUE else 0.0
    try:
        seconds = float(value)
    except (TypeError, ValueError):
        seconds = math.nan
    if not 0 < seconds < math.inf:
        message = f"{setting} is {value!r}: it takes true, false, or how often, in seconds."
        raise SettingsError(message, setting=setting, value=value)
    return max(seconds, _SHORTEST_INTERVAL)


def _usual_interval() -> float:
    """MLflow's own, and its variable for it."""
    try:
        return max(float(os.environ["MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL"]), _SHORTEST_INTERVAL)
    except (KeyError, ValueError):
        return _INTERVAL


def _is_true(setting: str, value: Any) -> bool:
    return _one_of(setting, str(value).strip().lower(), (*_TRUE, *_FALSE)) in _TRUE


def _one_of(setting: str, value: Any, known: tuple[str, ...]) -> str:
    if value in known:
        return str(value)
    hint = suggestion_for(str(value), known)
    raise SettingsError(
        f"{setting} is {value!r}{hint.text} It must be one of: {', '.join(k for k in known if k)}.",
        setting=setting,
        value=value,
    )
