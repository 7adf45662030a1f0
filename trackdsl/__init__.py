"""trackdsl: decorators and `with` blocks that turn ordinary Python into MLflow runs.

from trackdsl import experiment, stage, track_returns

@stage
@track_returns
def train(lr: float = 0.1) -> dict[str, float]: ...
"""

from __future__ import annotations

from trackdsl._configure import configure
from trackdsl._decorators import experiment, stage, track_returns
from trackdsl._log import (
    current_run,
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
from trackdsl._propagation import Context, attach
from trackdsl._reading import load_artifact
from trackdsl._roots import capture
from trackdsl._run import Run
from trackdsl._steps import log_stream, steps
from trackdsl._version import __version__
from trackdsl.delivery import flush
from trackdsl.distributed._surroundings import look_for_workers as _look_for_workers
from trackdsl.errors import (
    ArtifactError,
    ContextError,
    OptionError,
    ReturnsError,
    RunNotReady,
    SettingsError,
    TemplateError,
    TrackdslError,
    TrackingFault,
    UntrustedArtifact,
)
from trackdsl.handlers import register_handler
from trackdsl.markers import Artifact, Dataset, Ignore, Metric, Model, Param, Secret

__all__ = [
    "Artifact",
    "ArtifactError",
    "Context",
    "ContextError",
    "Dataset",
    "Ignore",
    "Metric",
    "Model",
    "OptionError",
    "Param",
    "ReturnsError",
    "Run",
    "RunNotReady",
    "Secret",
    "SettingsError",
    "TemplateError",
    "TrackdslError",
    "TrackingFault",
    "UntrustedArtifact",
    "__version__",
    "attach",
    "capture",
    "configure",
    "current_run",
    "experiment",
    "flush",
    "load_artifact",
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
    "set_tag",
    "set_tags",
    "stage",
    "steps",
    "track_returns",
]

_look_for_workers()
