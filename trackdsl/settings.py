"""The settings in force, as functions, and `Settings`, all of them as one object.

`trackdsl.configure` changes settings. `trackdsl doctor` prints the values in force, and where each one comes from.

Example:
    >>> import trackdsl
    >>> trackdsl.configure(experiment_name="churn")
    >>> trackdsl.settings.experiment_name()
    'churn'
    >>> trackdsl.settings.look_up("experiment_name").source
    'configure()'
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from trackdsl._config.resolve import (
    NAMES,
    Resolved,
    cards,
    changes,
    checked,
    configured,
    delivery,
    experiment_id,
    experiment_name,
    look_up,
    mode,
    public_names,
    ranks,
    reports,
    restore,
    secret_names,
    show_url,
    spool,
    stages,
    strict,
    system_metrics,
    traces,
    tracking_uri,
    update,
)
from trackdsl._config.spec import DEFAULT_TRACKING_URI

if TYPE_CHECKING:
    from trackdsl._config.model import Settings

__all__ = [
    "DEFAULT_TRACKING_URI",
    "NAMES",
    "Resolved",
    "Settings",
    "cards",
    "changes",
    "checked",
    "configured",
    "delivery",
    "experiment_id",
    "experiment_name",
    "look_up",
    "mode",
    "public_names",
    "ranks",
    "reports",
    "restore",
    "secret_names",
    "show_url",
    "spool",
    "stages",
    "strict",
    "system_metrics",
    "traces",
    "tracking_uri",
    "update",
]

# Tracebacks, help and pickles name public objects by where users import them from.
for _name in __all__:
    if callable(_public := globals().get(_name)):
        _public.__module__ = __name__


def __getattr__(name: str) -> Any:
    if name == "Settings":  # Its model needs pydantic, which takes longer to import than everything else here.
        from trackdsl._config.model import Settings

        return Settings
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
