"""Settings: `configure(...)`, then the environment, then defaults.

| setting | environment | default |
|---|---|---|
| `tracking_uri` | `TRACKDSL_TRACKING_URI`, then `MLFLOW_TRACKING_URI` | `sqlite:///mlflow.db` in the working folder |
| `experiment_name` | `TRACKDSL_EXPERIMENT_NAME`, then `MLFLOW_EXPERIMENT_ID` and `MLFLOW_EXPERIMENT_NAME` | `Default` |
| `mode` | `TRACKDSL_MODE` | `online` |
| `spool` | `TRACKDSL_SPOOL` | the user's state directory |
| `strict` | `TRACKDSL_STRICT` | off |
| `delivery` | `TRACKDSL_DELIVERY` | `process` |
| `secret_names` | `TRACKDSL_SECRET_NAMES`, separated by commas | none beside the well-known ones |
| `public_names` | `TRACKDSL_PUBLIC_NAMES`, separated by commas | none |
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from trackdsl._suggest import suggestion_for
from trackdsl.errors import SettingsError

DEFAULT_TRACKING_URI = "sqlite:///mlflow.db"
MODES = ("online", "offline", "disabled")
DELIVERIES = ("process", "thread")
_TRUE = ("1", "true", "yes", "on")
_FALSE = ("", "0", "false", "no", "off")


@dataclass(frozen=True)
class Settings:
    """What trackdsl was told. None means: not set, ask the environment.

    Attributes:
        tracking_uri: where runs go, as MLflow writes it.
        experiment_name: the MLflow experiment of root runs that name none.
        mode: `online` records and delivers, `offline` records for a later `trackdsl sync`, `disabled` does nothing.
        spool: the folder of the journals.
        strict: raise faults in tracking instead of logging them.
        delivery: `process` delivers from a process of its own, `thread` from a thread of this one.
        secret_names: names whose values are masked, beside the well-known ones (`password`, `api_key`, …).
        public_names: names whose values are not masked, whatever they look like.
    """

    tracking_uri: str | None = None
    experiment_name: str | None = None
    mode: str | None = None
    spool: str | Path | None = None
    strict: bool | None = None
    delivery: str | None = None
    secret_names: tuple[str, ...] | None = None
    public_names: tuple[str, ...] | None = None


_configured = Settings()


def configured() -> Settings:
    """What `configure` set so far."""
    return _configured


def restore(settings: Settings) -> None:
    """Put back settings taken from `configured`."""
    global _configured
    _configured = settings


def update(**changes: Any) -> None:
    """Change settings after checking every one of them.

    Raises:
        SettingsError: an unknown setting or value; nothing is changed then.
    """
    known = [field.name for field in fields(Settings)]
    for name in changes:
        if name not in known:
            hint = suggestion_for(name, known)
            raise SettingsError(
                f"configure() has no setting {name!r}{hint.text} Known: {', '.join(known)}.",
                setting=name,
                value=changes[name],
            )
    for name in ("secret_names", "public_names"):
        if name in changes:
            changes[name] = _names(name, changes[name])
    settings = replace(_configured, **changes)
    if settings.mode is not None:
        _one_of("mode", settings.mode, MODES)
    if settings.delivery is not None:
        _one_of("delivery", settings.delivery, DELIVERIES)
    restore(settings)


def mode() -> str:
    """`online`, `offline` or `disabled`."""
    return _configured.mode or _one_of("TRACKDSL_MODE", os.environ.get("TRACKDSL_MODE") or "online", MODES)


def delivery() -> str:
    """`process` or `thread`: where the delivery worker runs."""
    value = os.environ.get("TRACKDSL_DELIVERY") or "process"
    return _configured.delivery or _one_of("TRACKDSL_DELIVERY", value, DELIVERIES)


def strict() -> bool:
    """Whether faults in tracking raise."""
    if _configured.strict is not None:
        return _configured.strict
    value = os.environ.get("TRACKDSL_STRICT", "").strip().lower()
    return _one_of("TRACKDSL_STRICT", value, (*_TRUE, *_FALSE)) in _TRUE


def tracking_uri() -> str:
    """Where root runs go when neither a call nor an enclosing scope says it."""
    environ = os.environ
    return (
        _configured.tracking_uri
        or environ.get("TRACKDSL_TRACKING_URI")
        or environ.get("MLFLOW_TRACKING_URI")
        or DEFAULT_TRACKING_URI
    )


def experiment_name() -> str:
    """The MLflow experiment of root runs that name none."""
    environ = os.environ
    return (
        _configured.experiment_name
        or environ.get("TRACKDSL_EXPERIMENT_NAME")
        or environ.get("MLFLOW_EXPERIMENT_NAME")
        or "Default"
    )


def experiment_id() -> str | None:
    """MLflow's id of the experiment of root runs that name none, where that counts before any name.

    `mlflow.set_experiment` leaves it in the environment. MLflow's own order is the same: what was set in the program,
    then the environment, where a name and an id that do not agree are an error.
    """
    environ = os.environ
    if _configured.experiment_name or environ.get("TRACKDSL_EXPERIMENT_NAME"):
        return None
    # An id says something at the store alone that MLflow itself uses.
    if tracking_uri() != (environ.get("MLFLOW_TRACKING_URI") or DEFAULT_TRACKING_URI):
        return None
    return environ.get("MLFLOW_EXPERIMENT_ID") or None


def secret_names() -> tuple[str, ...]:
    """Names whose values are masked, beside the well-known ones."""
    return _either(_configured.secret_names, "TRACKDSL_SECRET_NAMES")


def public_names() -> tuple[str, ...]:
    """Names whose values are not masked, whatever they look like."""
    return _either(_configured.public_names, "TRACKDSL_PUBLIC_NAMES")


def spool() -> Path | None:
    """The spool folder that the user named, or None for the default place."""
    named = _configured.spool or os.environ.get("TRACKDSL_SPOOL")
    return Path(named).expanduser().absolute() if named else None


def _either(configured: tuple[str, ...] | None, variable: str) -> tuple[str, ...]:
    if configured is not None:
        return configured
    return tuple(name.strip() for name in os.environ.get(variable, "").split(",") if name.strip())


def _names(setting: str, value: Any) -> tuple[str, ...]:
    names = (value,) if isinstance(value, str) or not isinstance(value, Iterable) else tuple(value)
    if not all(isinstance(name, str) for name in names):
        raise SettingsError(f"{setting} takes names, not {value!r}.", setting=setting, value=value)
    return names


def _one_of(setting: str, value: str, known: tuple[str, ...]) -> str:
    if value in known:
        return value
    hint = suggestion_for(value, known)
    raise SettingsError(
        f"{setting} is {value!r}{hint.text} It must be one of: {', '.join(k for k in known if k)}.",
        setting=setting,
        value=value,
    )
