"""trackdsl: decorators and `with` blocks that turn ordinary Python into MLflow runs.

from trackdsl import experiment, stage, track_returns

@stage
@track_returns
def train(lr: float = 0.1) -> dict[str, float]: ...
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from trackdsl import settings as settings
from trackdsl._api.configure import configure
from trackdsl._api.log import (
    current_run,
    last,
    log_artifact,
    log_artifacts,
    log_dict,
    log_figure,
    log_image,
    log_input,
    log_metric,
    log_metrics,
    log_model,
    log_param,
    log_params,
    log_table,
    log_text,
    set_tag,
    set_tags,
)
from trackdsl._api.steps import steps
from trackdsl._api.streams import log_stream
from trackdsl._core import gc_workaround as _gc_workaround
from trackdsl._core import moved_modules as _moved_modules
from trackdsl._core.version import __version__
from trackdsl._decorate.decorators import experiment, stage, track_returns
from trackdsl._decorate.parentage import capture
from trackdsl._recording.datasets import RecordedDataset
from trackdsl._recording.loading import load_artifact
from trackdsl._runs.run import Run
from trackdsl.delivery import flush
from trackdsl.distributed._contexts import Context, attach
from trackdsl.distributed._engines import look_for_workers as _look_for_workers
from trackdsl.errors import (
    ArtifactError,
    ContextError,
    ExperimentDeleted,
    ExperimentNotFound,
    OptionError,
    QueryError,
    RegistryError,
    ReturnsError,
    RunNotFound,
    RunNotReady,
    SettingsError,
    TemplateError,
    TrackdslError,
    TrackingFault,
    TrackingServerError,
    TrackingServerUnreachable,
    UntrustedArtifact,
)
from trackdsl.handlers import register_handler
from trackdsl.markers import Artifact, Dataset, Ignore, Metric, Model, Param, Secret
from trackdsl.session import start_logging, stop_logging

if TYPE_CHECKING:
    from trackdsl._config.model import Settings
    from trackdsl._recording.model_registry import load_model, register_model
    from trackdsl._recording.recorded_model import RecordedModel
    from trackdsl.integrations._watch import watch
    from trackdsl.query import best, compare, history, runs, tree

__all__ = [
    "Artifact",
    "ArtifactError",
    "Context",
    "ContextError",
    "Dataset",
    "ExperimentDeleted",
    "ExperimentNotFound",
    "Ignore",
    "Metric",
    "Model",
    "OptionError",
    "Param",
    "QueryError",
    "RecordedDataset",
    "RecordedModel",
    "RegistryError",
    "ReturnsError",
    "Run",
    "RunNotFound",
    "RunNotReady",
    "Secret",
    "Settings",
    "SettingsError",
    "TemplateError",
    "TrackdslError",
    "TrackingFault",
    "TrackingServerError",
    "TrackingServerUnreachable",
    "UntrustedArtifact",
    "__version__",
    "attach",
    "best",
    "capture",
    "compare",
    "configure",
    "current_run",
    "experiment",
    "flush",
    "history",
    "last",
    "load_artifact",
    "load_model",
    "log_artifact",
    "log_artifacts",
    "log_dict",
    "log_figure",
    "log_image",
    "log_input",
    "log_metric",
    "log_metrics",
    "log_model",
    "log_param",
    "log_params",
    "log_stream",
    "log_table",
    "log_text",
    "register_handler",
    "register_model",
    "runs",
    "set_tag",
    "set_tags",
    "stage",
    "start_logging",
    "steps",
    "stop_logging",
    "track_returns",
    "tree",
    "watch",
]

#: Public names whose modules import much, so they are imported at their first use: name → module.
_LATE = {
    "load_model": "trackdsl._recording.model_registry",
    "register_model": "trackdsl._recording.model_registry",
    "RecordedModel": "trackdsl._recording.recorded_model",
    "watch": "trackdsl.integrations._watch",
    "Settings": "trackdsl._config.model",
    **dict.fromkeys(("best", "compare", "history", "runs", "tree"), "trackdsl.query"),
}


def __getattr__(name: str) -> Any:
    if name not in _LATE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(importlib.import_module(_LATE[name]), name)
    value.__module__ = __name__
    return value


def __dir__() -> list[str]:
    """What completion offers: the public names and modules."""
    return sorted([*__all__, "errors", "handlers", "integrations", "markers", "session", "settings", "testing"])


# Tracebacks, `help` and pickles name a public object by where users import it from.
for _name in __all__:
    if _name not in _LATE and _name != "__version__":
        globals()[_name].__module__ = __name__

_look_for_workers()
_gc_workaround.install()
_moved_modules.install()
