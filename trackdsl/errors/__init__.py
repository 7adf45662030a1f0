"""The exceptions that trackdsl raises, and how it reports faults in tracking.

A fault in tracking (a full disk, a value that cannot be stored) never reaches user code: it goes to `report`, which
writes one log line per cause. Misuse (an unknown option, a bad template) raises one of the exceptions at once.

This package imports nothing else of trackdsl, so every module may import it.
"""

from __future__ import annotations

from trackdsl.errors._caught import format_error, is_fault, reraise_from_signal
from trackdsl.errors._exceptions import (
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
    as_mlflows,
)
from trackdsl.errors._exceptions import (
    _rebuilt as _rebuilt,
)
from trackdsl.errors._report import (
    forget_reported,
    log_once,
    logger,
    mask_messages_with,
    report,
    set_strict,
    was_logged,
)

__all__ = [
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
    "as_mlflows",
    "forget_reported",
    "format_error",
    "is_fault",
    "log_once",
    "logger",
    "mask_messages_with",
    "report",
    "reraise_from_signal",
    "set_strict",
    "was_logged",
]

# The module that tracebacks and pickles name, also where nothing else of trackdsl is imported.
for _name in __all__[:17]:
    globals()[_name].__module__ = "trackdsl"
