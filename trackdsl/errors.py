"""The errors trackdsl raises, and the one place where faults in tracking are reported.

A fault in tracking (a full disk, a value that cannot be stored) never reaches user code: it goes through
`report`, which writes one log line per cause. Misuse (a bad option, a bad template) raises one of the errors below.
"""

from __future__ import annotations

import logging
import signal
import sys
import threading
from collections.abc import Callable
from typing import Any

from trackdsl._core.packages import install_command
from trackdsl._core.user_code import place_of_call

logger = logging.getLogger("trackdsl")

#: Takes secrets out of what is told. The module that knows how puts it here; it needs this one to report.
mask: Callable[[str], str] = str

#: `TRACKDSL_STRICT=1` makes `report` raise instead of log.
_strict = False
#: Causes that concern a call of the user's: their messages say where that stands.
_OF_CALLS = frozenset(["artifact", "capture", "example", "image", "model", "omitted", "table"])
_reported: set[str] = set()


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


def set_strict(strict: bool) -> None:
    """Choose whether faults in tracking raise (`True`) or are logged once per cause (`False`)."""
    global _strict
    _strict = strict


class _Masked(logging.Filter):
    """Takes secrets out of what is logged, whoever wrote the line."""

    def filter(self, record: logging.LogRecord) -> bool:
        """See `logging.Filter`."""
        try:
            record.msg = mask(record.getMessage())
        except Exception:  # Of the user's objects among the arguments: nothing of them is written.
            record.msg = str(record.msg)
        record.args = ()
        return True


logger.addFilter(_Masked())


def is_fault(error: BaseException) -> bool:
    """Whether an error is one of the code that has raised it, and no end of the program.

    That is every `Exception`, and the panic of a library that is written in Rust, which is none.
    """
    return isinstance(error, Exception) or type(error).__name__ == "PanicException"


def told(error: BaseException) -> str:
    """An exception in one line, also where its own `__str__` raises.

    Raises:
        BaseException: `error` itself, where a signal handler of the program has raised it, such as that of a time
            limit: it was meant for the program, and has only happened to interrupt us.
    """
    if _comes_from_a_signal(error):
        raise error
    try:
        command = install_command(error) if isinstance(error, ImportError) else None
        return f"{type(error).__name__}: {error}" + ("" if command is None else f"; `{command}` brings it")
    except Exception:
        return type(error).__name__


def _comes_from_a_signal(error: BaseException) -> bool:
    if threading.current_thread() is not threading.main_thread():  # Python runs handlers there alone.
        return False
    frames = set()
    trace = error.__traceback__
    while trace is not None:
        frames.add(trace.tb_frame.f_code)
        trace = trace.tb_next
    handlers = map(signal.getsignal, signal.valid_signals())
    return any(getattr(handler, "__code__", None) in frames for handler in handlers)


def report(cause: str, message: str, *, key: str | None = None) -> None:
    """Tell of a fault in tracking: one warning on logger `trackdsl` per cause.

    Args:
        cause: short stable name of the kind of fault.
        message: what happened and what to do about it.
        key: what makes this cause distinct from others of its kind; one line is written for each.

    Raises:
        TrackingFault: under `TRACKDSL_STRICT=1`.
    """
    if cause in _OF_CALLS:
        message = f"{message.removesuffix('.')} (at {place_of_call()})"
    if _strict:
        raise TrackingFault(mask(message), cause=cause)
    note(message, key=f"{cause}:{key}")


def is_noted(key: str) -> bool:
    """Whether `note` has said what it has under this key, so that its message need not be made."""
    return key in _reported


def note(message: str, *, key: str) -> None:
    """Say something that is no fault, and that the user probably wants to know: one warning for each key.

    Args:
        message: what it is, and what to do about it.
        key: what makes it distinct from other notes.
    """
    if key not in _reported:
        if len(_reported) < 10_000:
            _reported.add(key)
        logger.warning(message)
