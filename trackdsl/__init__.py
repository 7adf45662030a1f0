"""trackdsl: decorators and `with` blocks that turn ordinary Python into MLflow runs.

from trackdsl import experiment, stage, track_returns

@stage
@track_returns
def train(lr: float = 0.1) -> dict[str, float]: ...
"""

from __future__ import annotations

import importlib
import os
import sys

from trackdsl._core import moved_modules as _moved_modules
from trackdsl._core.version import __version__
from trackdsl.distributed._workers import look_for_workers as _look_for_workers

TYPE_CHECKING = False  # Type checkers take it for true. Importing `typing` for it would take milliseconds.
if TYPE_CHECKING:
    from typing import Any

    from trackdsl import errors as errors
    from trackdsl import handlers as handlers
    from trackdsl import integrations as integrations
    from trackdsl import markers as markers
    from trackdsl import session as session
    from trackdsl import settings as settings
    from trackdsl import testing as testing
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
    from trackdsl._config.model import Settings
    from trackdsl._decorate.decorators import Block, experiment, stage, track_returns
    from trackdsl._decorate.parentage import capture
    from trackdsl._recording.datasets import RecordedDataset
    from trackdsl._runs.loading import load_artifact
    from trackdsl._runs.model_registry import load_model, register_model
    from trackdsl._runs.recorded_model import RecordedModel
    from trackdsl._runs.run import Run
    from trackdsl.delivery import flush
    from trackdsl.distributed._contexts import Context, attach
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
    from trackdsl.integrations._watch import watch
    from trackdsl.markers import Artifact, Dataset, Ignore, Metric, Model, Param, Secret
    from trackdsl.query import best, changes, compare, history, runs, tree
    from trackdsl.session import start_logging, stop_logging

__all__ = [
    "Artifact",
    "ArtifactError",
    "Block",
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
    "changes",
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

#: The modules of the public names, imported together when the first of these names is used. A process that uses none,
#: such as the delivery process, a command or a session of pytest, does without what recording needs.
_MODULES = {
    "trackdsl._api.configure": ("configure",),
    "trackdsl._api.log": (
        "current_run",
        "last",
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
        "log_table",
        "log_text",
        "set_tag",
        "set_tags",
    ),
    "trackdsl._api.steps": ("steps",),
    "trackdsl._api.streams": ("log_stream",),
    "trackdsl._decorate.decorators": (
        "Block",
        "experiment",
        "stage",
        "track_returns",
    ),
    "trackdsl._decorate.parentage": ("capture",),
    "trackdsl._recording.datasets": ("RecordedDataset",),
    "trackdsl._runs.loading": ("load_artifact",),
    "trackdsl._runs.run": ("Run",),
    "trackdsl.delivery": ("flush",),
    "trackdsl.distributed._contexts": (
        "Context",
        "attach",
    ),
    "trackdsl.errors": (
        "ArtifactError",
        "ContextError",
        "ExperimentDeleted",
        "ExperimentNotFound",
        "OptionError",
        "QueryError",
        "RegistryError",
        "ReturnsError",
        "RunNotFound",
        "RunNotReady",
        "SettingsError",
        "TemplateError",
        "TrackdslError",
        "TrackingFault",
        "TrackingServerError",
        "TrackingServerUnreachable",
        "UntrustedArtifact",
    ),
    "trackdsl.handlers": ("register_handler",),
    "trackdsl.markers": (
        "Artifact",
        "Dataset",
        "Ignore",
        "Metric",
        "Model",
        "Param",
        "Secret",
    ),
    "trackdsl.session": (
        "start_logging",
        "stop_logging",
    ),
}
#: Public names whose modules import much, so that each is imported for itself: module → names.
_LATE = {
    "trackdsl._runs.model_registry": ("load_model", "register_model"),
    "trackdsl._runs.recorded_model": ("RecordedModel",),
    "trackdsl.integrations._watch": ("watch",),
    "trackdsl._config.model": ("Settings",),
    "trackdsl.query": ("best", "changes", "compare", "history", "runs", "tree"),
}
#: `%load_ext trackdsl` calls these.
_IPYTHON = ("load_ipython_extension", "unload_ipython_extension")
#: Public modules, each imported when it is first used.
_SUBMODULES = ("errors", "handlers", "integrations", "markers", "session", "settings", "testing")


def __getattr__(name: str) -> Any:
    if name in _SUBMODULES:
        return importlib.import_module(f"trackdsl.{name}")
    if name in _IPYTHON:
        return getattr(importlib.import_module("trackdsl.notebook.magics"), name)
    for module, names in _LATE.items():
        if name in names:
            return _take(module, (name,))
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    for module, names in _MODULES.items():
        _take(module, names)
    return globals()[name]


def _take(module: str, names: tuple[str, ...]) -> Any:
    """Make objects of a module public; returns the first of them.

    Tracebacks, `help` and pickles name a public object by where users import it from.
    """
    imported = importlib.import_module(module)
    for name in names:
        value = globals()[name] = getattr(imported, name)
        value.__module__ = __name__
    return globals()[names[0]]


def __dir__() -> list[str]:
    """What completion offers: the public names and modules."""
    return sorted([*__all__, *_SUBMODULES])


_look_for_workers()
_moved_modules.install()
if "TRACKDSL_NOTEBOOK" in os.environ:
    importlib.import_module("trackdsl.notebook.loading").load_in_kernel(os.environ["TRACKDSL_NOTEBOOK"])
if "marimo" in sys.modules:
    importlib.import_module("trackdsl.notebook.loading").follow_marimo()
