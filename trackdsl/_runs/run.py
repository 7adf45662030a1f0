"""`Run`: the handle of a run that users get, with everything that can be recorded on it.

Every method writes one event to the journal and returns; nothing waits for MLflow, except `run_id` and `url`.
"""

from __future__ import annotations

import contextlib
import re
from types import FunctionType
from typing import TYPE_CHECKING, Any, NoReturn

from trackdsl._core.events import Tags
from trackdsl._core.ids import begins_with, new_id, prefix
from trackdsl._core.missing_call import explained
from trackdsl._core.redaction import mask_text
from trackdsl._core.suggest import suggestion_for
from trackdsl._core.uris import run_page
from trackdsl._recording.emit import append_tags, guarded, tags_of
from trackdsl._runs import ending as _ending
from trackdsl._runs.exceptions import FINISHED, STATUSES
from trackdsl._runs.file_methods import FileMethods
from trackdsl._runs.value_methods import ValueMethods

# Here, and not where it is used: this import registers the start of delivery, which every program with a run needs.
from trackdsl.delivery import find_run, known_run_id
from trackdsl.errors import OptionError, RunNotReady, report
from trackdsl.journal._store_target import Target
from trackdsl.store_format.tags import ENDED_TAG

if TYPE_CHECKING:
    from trackdsl._core.handle import RunTarget
    from trackdsl._runs.recorded_model import RecordedModel

#: The attributes of runs in pickles of earlier versions → their names now.
_OLD_NAMES = {
    "_began": "began",
    "_children": "children",
    "_id": "key",
    "_lost": "lost",
    "_target": "target",
    "goes_on": "continued_id",
}


class Run(ValueMethods, FileMethods):
    """A run that is being recorded.

    You get one from `with stage(...) as run` or `current_run()`.

    Attributes:
        name: the run's name in MLflow.
        parent: the run around this one, or None.
        path: the names from the root down to this run, joined by `/`.
        experiment: the name of the MLflow experiment it is in; None if only MLflow's id of the experiment is known.
        began: when it began, in nanoseconds since 1970; 0 where another process began it.

    Example:
        >>> with stage("split", seed=42) as run:  # doctest: +SKIP
        ...     run.log_metric("rows", 1000)
    """

    __slots__ = ()

    target: Target
    parent: Run | None

    @property
    def run_id(self) -> str:
        """MLflow's id of this run.

        Where delivery writes to a database, the id is known at once: it is the same as `id`. Elsewhere this waits until
        the run exists at MLflow, as long as its delivery is alive.

        Raises:
            RunNotReady: MLflow cannot have it now (the store does not answer or refuses it, no process delivers), or
                never will (offline, disabled).
        """
        self.request_lookup()
        return self._known_run_id() or str(self.wait_for_mlflow().run_id)

    @property
    def url(self) -> str:
        """Where the MLflow UI shows this run; waits like `run_id`."""
        self.request_lookup()
        found = self.wait_for_mlflow()
        base = self.target.uri if self.target.uri.startswith("http") else "http://127.0.0.1:5000"
        return run_page(mask_text(base), found.experiment_id, found.run_id)

    def wait_for_mlflow(self, timeout: float | None = None) -> Any:
        """Wait until the run exists at MLflow.

        Args:
            timeout: seconds to wait at most; None to wait as long as delivery is alive and does not fail.

        Returns:
            an object with `run_id` and `experiment_id`, MLflow's own.

        Raises:
            RunNotReady: it does not exist yet.
        """
        from trackdsl.store_format.known_runs import KnownRun

        if self.target.discards:  # Another process records, so code that reads the id here gets one that works.
            return KnownRun(self.id, "0")
        if self.target.writer is None or not self.target.delivers:
            raise RunNotReady(f"run {self.name!r} is not recorded, so MLflow has no id for it", run=self.id)
        return find_run(self.target, self.key, timeout)

    def _known_run_id(self) -> str | None:
        """MLflow's id if there is nothing to wait for; else None."""
        # Runs that other programs began may have other ids there.
        new = type(self) is Run and begins_with(self.key, prefix())
        if not new or self.target.writer is None or not self.target.delivers:
            return None
        return known_run_id(self.target, self.key)

    def request_lookup(self) -> None:
        """Ask delivery to look the run up at MLflow, if another process began it, perhaps on another machine."""
        if self.target.delivers and not begins_with(self.key, prefix()):
            # Delivery looks up every run that has events, even empty ones.
            self.emit(Tags(self.key, {}))

    @explained
    def end(self, status: str = FINISHED, reason: str | None = None) -> None:
        """End the run now, with a status of your choice. Its block, call or session does not end it again.

        You can still record on it afterwards. A later call of `end` sets another status.

        Args:
            status: `FINISHED`, `FAILED` or `KILLED`.
            reason: why, in a sentence; it becomes the tag `trackdsl.ended`.

        Raises:
            OptionError: the status is unknown.

        Example:
            >>> run.end("FAILED", "the loss diverged")  # doctest: +SKIP
        """
        status = checked_status(status, "end()")
        with guarded("end", self):
            if reason is not None:
                append_tags(self, tags_of([(ENDED_TAG, reason)]))
            if self.not_ended_here:
                report(
                    "end", f"run.end({status!r}) has no effect on {self.path!r}: {self.not_ended_here}.", key=self.id
                )
                return
            _ending.end_early(self, status)

    @property
    def not_ended_here(self) -> str:
        """Why `end` has no effect on the run, in a sentence; empty where it has one."""
        return "" if begins_with(self.key, prefix()) else "only the program that began a run can end it"

    def detached(self, name: str, target: RunTarget) -> Run:
        """See `RunHandle`."""
        return Run(new_id(), name, None, name, None, target)

    def __enter__(self) -> NoReturn:
        raise OptionError(
            'a run has already begun, and is not a block: write `with experiment("a-name") as run:` or '
            '`with stage("a-name") as run:`. stop_logging() ends a session.',
            option="with",
        )

    __aenter__ = __enter__

    def __exit__(self, *_: object) -> None: ...

    async def __aexit__(self, *_: object) -> None: ...

    def __setstate__(self, state: tuple[None, dict[str, Any]]) -> None:
        for name, value in state[1].items():
            setattr(self, _OLD_NAMES.get(name, name), value)

    def __dir__(self) -> list[str]:
        """What completion offers. The other names are for trackdsl's own modules."""
        return [*_DOCUMENTED]

    def __repr__(self) -> str:
        return f"<Run {self.path!r} {self.id}>"

    def _repr_html_(self) -> str:
        from trackdsl._runs.run_html import run_html

        return run_html(self, known_page(self))


#: The interface for users.
_DOCUMENTED = (
    *(name for base in (ValueMethods, FileMethods) for name in vars(base) if not name.startswith("_")),
    *("began", "end", "experiment", "id", "name", "parent", "path", "run_id", "url"),
)
for _base in (ValueMethods, FileMethods):
    for _method in vars(_base).values():
        if isinstance(_method, FunctionType):  # Errors about wrong arguments name the class that users know.
            _method.__qualname__ = f"Run.{_method.__name__}"


def known_page(run: Run) -> str | None:
    """The address of MLflow's page of a run, if a tracking server has the run already; else None."""
    if not run.target.uri.startswith(("http://", "https://")):
        return None  # Nobody knows whether `mlflow ui` shows a database, and where.
    with contextlib.suppress(RunNotReady):
        run.wait_for_mlflow(0)
        return run.url
    return None


def checked_status(status: Any, called: str) -> str:
    """Check the status that a run ends with.

    Raises:
        OptionError: the status is unknown.
    """
    name = status.upper() if isinstance(status, str) else ""
    if name not in STATUSES:
        hint = suggestion_for(name, STATUSES)
        message = f"{called} takes {', '.join(STATUSES)} as a status, not {status!r}{hint.text}"
        raise OptionError(message, option="status", suggestion=hint.name)
    return name


class AdoptedRun(Run):
    """A run that plain MLflow began and will end.

    Attributes:
        mlflow_run_id: MLflow's id of it.
        mlflow_experiment_id: MLflow's id of its experiment.
    """

    __slots__ = ("mlflow_experiment_id", "mlflow_run_id")

    mlflow_run_id: str
    mlflow_experiment_id: str

    def wait_for_mlflow(self, timeout: float | None = None) -> Any:
        """See `Run`: MLflow has the run, so nothing waits, except where only one of its ids is known."""
        if not self.mlflow_experiment_id:
            return super().wait_for_mlflow(timeout)
        from trackdsl.store_format.known_runs import KnownRun

        return KnownRun(self.mlflow_run_id, self.mlflow_experiment_id)

    def request_lookup(self) -> None:
        """See `Run`: MLflow has the run, so nothing needs to be looked up."""

    @property
    def not_ended_here(self) -> str:
        """See `Run`."""
        return "plain MLflow began it, so mlflow.end_run ends it"


class ContinuedRun(Run):
    """A run that an earlier program or scope began, and that continues here.

    Attributes:
        continued_id: the id that the user gave for it: trackdsl's or MLflow's.
    """

    __slots__ = ("continued_id",)

    continued_id: str

    @property
    def id(self) -> str:
        """The id that the user gave for the run, which finds it on every machine: trackdsl's or MLflow's."""
        return self.continued_id


#: The ids of runs that MLflow accepts.
_RUN_ID = re.compile(r"[a-zA-Z0-9][\w-]{0,255}", re.ASCII)


def adoption_of(run: Run) -> tuple[str, str] | None:
    """MLflow's ids of a run and its experiment, for other processes that cannot find the run by its key; or None."""
    if isinstance(run, AdoptedRun):
        return run.mlflow_run_id, run.mlflow_experiment_id
    return (run.continued_id, "") if isinstance(run, ContinuedRun) else None


def checked_run_id(value: Any, called: str) -> str | Run | None:
    """The run to continue.

    Args:
        value: trackdsl's or MLflow's id of a run, a `Run`, a run object of MLflow, or a result of `best` or `runs`.
        called: the name of the user's argument, for the message.

    Returns:
        an id as text, or a `Run`; None for the handle of disabled tracking.

    Raises:
        OptionError: the value names no run.
    """
    if isinstance(value, Run):
        return None if value is NULL_RUN else value
    info = getattr(value, "info", None)
    text = value if isinstance(value, str) else getattr(value, "run_id", None) or getattr(info, "run_id", None)
    if not isinstance(text, str) or not _RUN_ID.fullmatch(text):
        raise OptionError(
            f"{called} takes the id of a run, trackdsl's or MLflow's, or a run itself, such as trackdsl.last(); "
            f"not {value!r}.",
            option="run_id",
        )
    return text


class _NullRun(Run):
    """The handle while tracking is disabled: its methods do nothing."""

    __slots__ = ()


def _record_nothing(*_: Any, **__: Any) -> None: ...


def _record_no_model(_self: Run, _model: Any, name: str, **_options: Any) -> RecordedModel:
    from trackdsl._runs.recorded_model import unrecorded

    return unrecorded(name, "tracking is switched off")


for _name in [name for name in dir(Run) if name.startswith(("log_", "set_")) or name == "end"]:
    setattr(_NullRun, _name, _record_no_model if _name == "log_model" else _record_nothing)

NULL_RUN: Run = _NullRun(bytes(16), "disabled", None, "disabled", None, Target("disabled", "/", deliver=False))
