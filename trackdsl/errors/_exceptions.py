"""The exceptions that trackdsl raises."""

from __future__ import annotations

import sys
from typing import Any


class TrackdslError(Exception):
    """The base class of every error that trackdsl raises. All of them can be pickled, with their fields."""

    def __reduce__(self) -> tuple[Any, ...]:
        kind = next(each for each in type(self).__mro__ if globals().get(each.__name__) is each)
        return _rebuilt, (kind, self.args, self.__dict__)


def _rebuilt(kind: type[TrackdslError], args: tuple[Any, ...], fields: dict[str, Any]) -> TrackdslError:
    error = kind.__new__(kind, *args)
    error.args = args
    error.__dict__.update(fields)
    return error


# The module that pickles name: it has the exceptions too.
_rebuilt.__module__ = "trackdsl.errors"


class OptionError(TrackdslError, TypeError):
    """An option of a decorator, block or function does not exist, or cannot have this value.

    Attributes:
        option: the name of the option.
        suggestion: the option with the most similar name, or None.
    """

    def __init__(self, message: str, *, option: str, suggestion: str | None = None) -> None:
        super().__init__(message)
        self.option = option
        self.suggestion = suggestion


class TemplateError(TrackdslError, ValueError):
    """A name template has a placeholder that is not a parameter of the function.

    Attributes:
        template: the template as written.
        placeholder: the placeholder that is not a parameter.
    """

    def __init__(self, message: str, *, template: str, placeholder: str) -> None:
        super().__init__(message)
        self.template = template
        self.placeholder = placeholder


class ReturnsError(TrackdslError, TypeError):
    """`track_returns` has more names than the function returns values, by its annotation.

    Attributes:
        names: the names given to `track_returns`.
    """

    def __init__(self, message: str, *, names: tuple[str, ...]) -> None:
        super().__init__(message)
        self.names = names


class SettingsError(TrackdslError, ValueError):
    """A setting does not exist, or cannot have this value.

    Attributes:
        setting: the name of the setting, as the user wrote it.
        value: its value.
    """

    def __init__(self, message: str, *, setting: str, value: object) -> None:
        super().__init__(message)
        self.setting = setting
        self.value = value


class TrackingServerError(TrackdslError):
    """The tracking server answered with an error: wrong address or credentials, another version, or an internal error.

    Attributes:
        uri: the tracking URI, without credentials.
        status: the HTTP status of the answer, or None.
    """

    def __init__(self, message: str, *, uri: str, status: int | None = None) -> None:
        super().__init__(message)
        self.uri = uri
        self.status = status


class TrackingServerUnreachable(TrackingServerError, ConnectionError):
    """No server answers at the tracking URI, or none in time.

    Attributes:
        reason: what happened, in one sentence.
    """

    def __init__(self, message: str, *, uri: str, reason: str = "", status: int | None = None) -> None:
        super().__init__(message, uri=uri, status=status)
        self.reason = reason


class ExperimentDeleted(TrackdslError):
    """The MLflow experiment of a run is deleted.

    Attributes:
        experiment: its name.
        experiment_id: MLflow's id of it.
    """

    def __init__(self, message: str, *, experiment: str, experiment_id: str) -> None:
        super().__init__(message)
        self.experiment = experiment
        self.experiment_id = experiment_id


class RunNotReady(TrackdslError, TimeoutError):
    """MLflow's id of a run is not known: the run could not be created in MLflow in time.

    Attributes:
        run: trackdsl's own id of the run.
        reason: the last message of the delivery process, or None.
    """

    def __init__(self, message: str, *, run: str, reason: str | None = None) -> None:
        super().__init__(message)
        self.run = run
        self.reason = reason


class ArtifactError(TrackdslError, ValueError):
    """An artifact cannot be loaded.

    Attributes:
        path: its path in the run, as the program gave it.
    """

    def __init__(self, message: str, *, path: str) -> None:
        super().__init__(message)
        self.path = path


class UntrustedArtifact(ArtifactError):
    """An artifact may run code when it is loaded, so loading it needs `trusted=True`."""


class RegistryError(TrackdslError, ValueError):
    """MLflow's model registry refuses a model or its name.

    Attributes:
        name: the name of the registered model.
    """

    def __init__(self, message: str, *, name: str) -> None:
        super().__init__(message)
        self.name = name


class QueryError(TrackdslError, ValueError):
    """A query is wrong: a filter with an error, an unknown name, or a store that does not exist.

    Attributes:
        argument: the wrong argument: `where`, `order_by`, `tracking_uri`, or the name of a condition.
        suggestion: the most similar name that exists, or None.
    """

    def __init__(self, message: str, *, argument: str, suggestion: str | None = None) -> None:
        super().__init__(message)
        self.argument = argument
        self.suggestion = suggestion


class ExperimentNotFound(QueryError, LookupError):
    """The store has no experiment of this name or id."""


class RunNotFound(QueryError, LookupError):
    """The store has no run of this name or id, or more than one."""


class ContextError(TrackdslError, ValueError):
    """The text is not a captured context.

    Attributes:
        text: the beginning of the text, with secrets masked.
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
    """The error as one that is also an `MlflowException`, if the program has imported MLflow.

    So programs that were written for MLflow catch it.
    """
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
