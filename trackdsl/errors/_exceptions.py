"""The exceptions that trackdsl raises."""

from __future__ import annotations

import sys
from typing import Any


class TrackdslError(Exception):
    """The root of every error that trackdsl raises. They travel between processes with all that they carry."""

    def __reduce__(self) -> tuple[Any, ...]:
        kind = next(each for each in type(self).__mro__ if globals().get(each.__name__) is each)
        return _rebuilt, (kind, self.args, self.__dict__)


def _rebuilt(kind: type[TrackdslError], args: tuple[Any, ...], fields: dict[str, Any]) -> TrackdslError:
    error = kind.__new__(kind, *args)
    error.args = args
    error.__dict__.update(fields)
    return error


class OptionError(TrackdslError, TypeError):
    """A decorator or block was given an option that does not exist or does not fit.

    Attributes:
        option: the offending keyword.
        suggestion: the nearest option that exists, or None.
    """

    def __init__(self, message: str, *, option: str, suggestion: str | None = None) -> None:
        super().__init__(message)
        self.option = option
        self.suggestion = suggestion


class TemplateError(TrackdslError, ValueError):
    """A name template names something that is not a parameter of the function.

    Attributes:
        template: the template as written.
        placeholder: the part that fits no parameter.
    """

    def __init__(self, message: str, *, template: str, placeholder: str) -> None:
        super().__init__(message)
        self.template = template
        self.placeholder = placeholder


class ReturnsError(TrackdslError, TypeError):
    """`track_returns` names more values than the annotation of the function says it returns.

    Attributes:
        names: the names given to `track_returns`.
    """

    def __init__(self, message: str, *, names: tuple[str, ...]) -> None:
        super().__init__(message)
        self.names = names


class SettingsError(TrackdslError, ValueError):
    """A setting has a value that trackdsl does not know.

    Attributes:
        setting: the name of the setting, as the user wrote it.
        value: its value.
    """

    def __init__(self, message: str, *, setting: str, value: object) -> None:
        super().__init__(message)
        self.setting = setting
        self.value = value


class TrackingServerError(TrackdslError):
    """The place that runs go to was reached, and says no: wrong address, credentials, version, a fault of its own.

    Attributes:
        uri: the tracking URI, without credentials.
        status: the HTTP status that it answered with, or None.
    """

    def __init__(self, message: str, *, uri: str, status: int | None = None) -> None:
        super().__init__(message)
        self.uri = uri
        self.status = status


class TrackingServerUnreachable(TrackingServerError, ConnectionError):
    """Nobody answers at the tracking URI, or not in time.

    Attributes:
        reason: what happened, in one sentence.
    """

    def __init__(self, message: str, *, uri: str, reason: str = "", status: int | None = None) -> None:
        super().__init__(message, uri=uri, status=status)
        self.reason = reason


class ExperimentDeleted(TrackdslError):
    """The MLflow experiment that a run is to go to is deleted.

    Attributes:
        experiment: its name.
        experiment_id: MLflow's id of it.
    """

    def __init__(self, message: str, *, experiment: str, experiment_id: str) -> None:
        super().__init__(message)
        self.experiment = experiment
        self.experiment_id = experiment_id


class RunNotReady(TrackdslError, TimeoutError):
    """MLflow's id of a run was asked for, and the run could not be created at MLflow in time.

    Attributes:
        run: trackdsl's own id of the run.
        reason: what the delivery process said last, or None.
    """

    def __init__(self, message: str, *, run: str, reason: str | None = None) -> None:
        super().__init__(message)
        self.run = run
        self.reason = reason


class ArtifactError(TrackdslError, ValueError):
    """An artifact cannot be loaded.

    Attributes:
        path: its path in the run, as it was asked for.
    """

    def __init__(self, message: str, *, path: str) -> None:
        super().__init__(message)
        self.path = path


class UntrustedArtifact(ArtifactError):
    """An artifact that may run code when it is loaded was asked for without `trusted=True`."""


class RegistryError(TrackdslError, ValueError):
    """MLflow's model registry refuses a model, or the name that it is to have there.

    Attributes:
        name: the name of the registered model.
    """

    def __init__(self, message: str, *, name: str) -> None:
        super().__init__(message)
        self.name = name


class QueryError(TrackdslError, ValueError):
    """A question that MLflow's runs cannot answer as it was asked: a bad filter, an unknown name, no store to ask.

    Attributes:
        argument: what was wrong: `where`, `order_by`, `tracking_uri`, the name of a condition.
        suggestion: the nearest that there is, or None.
    """

    def __init__(self, message: str, *, argument: str, suggestion: str | None = None) -> None:
        super().__init__(message)
        self.argument = argument
        self.suggestion = suggestion


class ExperimentNotFound(QueryError, LookupError):
    """The store has no such experiment."""


class RunNotFound(QueryError, LookupError):
    """The store has no such run, or several that the name fits."""


class ContextError(TrackdslError, ValueError):
    """A text that should be a captured context is none.

    Attributes:
        text: its beginning, with secrets masked.
    """

    def __init__(self, message: str, *, text: str) -> None:
        super().__init__(message)
        self.text = text


class TrackingFault(TrackdslError):
    """A fault in tracking, raised only under `TRACKDSL_STRICT=1`.

    Attributes:
        cause: a short stable name of the cause, such as `spool` or `outside-run`.
    """

    def __init__(self, message: str, *, cause: str) -> None:
        super().__init__(message)
        self.cause = cause


def as_mlflows(error: TrackdslError) -> TrackdslError:
    """An error that a program written for MLflow catches too: an `MlflowException`, where MLflow has been imported."""
    exceptions = sys.modules.get("mlflow.exceptions")
    if exceptions is None:
        return error
    kind = type(error)
    names = {"__module__": kind.__module__, "__doc__": kind.__doc__}
    both: Any = type(kind.__name__, (kind, exceptions.MlflowException), names)
    raised = both.__new__(both, *error.args)
    exceptions.MlflowException.__init__(raised, str(error))
    raised.__dict__.update(error.__dict__)
    assert isinstance(raised, TrackdslError)
    return raised
